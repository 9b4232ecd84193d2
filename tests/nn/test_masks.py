"""Mask rules against their definitions in Python loops, and every plan against the dense mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.config import UserError
from groundup.nn.kernels import attend, naive_attention
from groundup.nn.masks import (
    Causal,
    Document,
    Everything,
    LeftPadding,
    Padding,
    Plan,
    Prefix,
    Rule,
    Sinks,
    Window,
    dense,
    density,
    flex_plan,
    plan,
)
from groundup.nn.sparse_masks import Blocks, Global, Random, Strided, Summaries

CPU = torch.device("cpu")
LENGTH = 13
NUMBERS = [[0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2, 3, 3], [5] * 4 + [1] * 9, [7] * 13]
LENGTHS, PREFIXES, FILLING = [13, 4, 1], [3, 0, 9], [0, 6, 2]
FLAGS = [position in (0, 7) for position in range(LENGTH)]
RANDOM = Random(LENGTH, 2, seed=3, size=3)


@dataclass(frozen=True)
class Case:
    """A rule, and what it means for one pair: row b, query i, key j."""

    rule: Rule
    sees: Callable[[int, int, int], bool]


CASES = {
    "everything": Case(Everything(), lambda b, i, j: True),
    "causal": Case(Causal(), lambda b, i, j: j <= i),
    "window": Case(Window(4), lambda b, i, j: i - 4 < j < i + 4),
    "causal window": Case(Causal() & Window(4), lambda b, i, j: j in (i - 3, i - 2, i - 1, i)),
    "window of one": Case(Causal() & Window(1), lambda b, i, j: j == i),
    "window and sinks": Case(
        Causal() & (Window(3) | Sinks(2)), lambda b, i, j: j <= i and (i - j < 3 or j in (0, 1))
    ),
    "prefix": Case(Causal() | Prefix(5), lambda b, i, j: j <= i or j < 5),
    "prefix per row": Case(
        Causal() | Prefix(torch.tensor(PREFIXES)), lambda b, i, j: j <= i or j < PREFIXES[b]
    ),
    "documents": Case(
        Causal() & Document(torch.tensor(NUMBERS)),
        lambda b, i, j: j <= i and NUMBERS[b][i] == NUMBERS[b][j],
    ),
    "windows in documents": Case(
        Window(2) & Document(torch.tensor(NUMBERS)),
        lambda b, i, j: abs(i - j) <= 1 and NUMBERS[b][i] == NUMBERS[b][j],
    ),
    "padding": Case(Padding(torch.tensor(LENGTHS)), lambda b, i, j: j < LENGTHS[b]),
    "causal padding": Case(
        Causal() & Padding(torch.tensor(LENGTHS)), lambda b, i, j: j <= i and j < LENGTHS[b]
    ),
    "left padding": Case(
        Causal() & LeftPadding(torch.tensor(FILLING)), lambda b, i, j: FILLING[b] <= j <= i
    ),
    "blocks": Case(Blocks(5), lambda b, i, j: i // 5 == j // 5),
    "strided": Case(
        Causal() & (Window(4) | Strided(4)),
        lambda b, i, j: j <= i and (i - j < 4 or (i - j) % 4 == 0),
    ),
    "fixed": Case(
        Causal() & (Blocks(4) | Summaries(4)),
        lambda b, i, j: j <= i and (i // 4 == j // 4 or j % 4 == 3),
    ),
    "longformer": Case(
        Window(3) | Global(torch.tensor([FLAGS])),
        lambda b, i, j: abs(i - j) < 3 or i in (0, 7) or j in (0, 7),
    ),
    "bigbird": Case(
        Window(2) | Global(torch.tensor([FLAGS])) | RANDOM,
        lambda b, i, j: abs(i - j) < 2
        or i in (0, 7)
        or j in (0, 7)
        or bool(RANDOM.linked[i // 3, j // 3]),
    ),
}  # fmt: skip


@pytest.fixture(params=CASES, ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.mark.parametrize("queries", [LENGTH, 4, 1])
def test_a_rule_is_its_definition_with_and_without_a_cache(case, queries):
    mask = dense(case.rule, queries, LENGTH, CPU)
    assert mask.shape == (case.rule.rows, queries, LENGTH) and mask.dtype == torch.bool
    offset = LENGTH - queries
    expected = [
        [[case.sees(b, offset + i, j) for j in range(LENGTH)] for i in range(queries)]
        for b in range(case.rule.rows)
    ]
    assert mask.tolist() == expected
    share = sum(sum(map(sum, row)) for row in expected) / mask.numel()
    assert density(case.rule, queries, LENGTH) == pytest.approx(share)


@pytest.mark.parametrize("queries", [LENGTH, 4, 1])
@pytest.mark.parametrize("num_kv_heads", [1, 2])
def test_every_plan_equals_the_naive_formula(case, queries, num_kv_heads):
    query = torch.randn(3, 4, queries, 16)
    key, value = torch.randn(2, 3, num_kv_heads, LENGTH, 16)
    visible = dense(case.rule, queries, LENGTH, CPU)[:, None]
    slow, weights = naive_attention(query, key, value, visible)
    fast = attend(query, key, value, plan(case.rule, queries, LENGTH, CPU))
    torch.testing.assert_close(fast, slow, atol=1e-6, rtol=1e-5)
    sees = visible.any(-1).float().expand(3, 4, queries)
    torch.testing.assert_close(weights.sum(-1), sees)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("name", "queries"), [("bigbird", LENGTH), ("documents", 4)])
def test_flex_attention_sees_the_same(name, queries):
    rule = CASES[name].rule
    query = torch.randn(3, 4, queries, 16)
    key, value = torch.randn(2, 3, 2, LENGTH, 16)
    expected = attend(query, key, value, plan(rule, queries, LENGTH, CPU))
    actual = attend(query, key, value, flex_plan(rule, queries, LENGTH, CPU))
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-5)


def test_causal_is_bottom_right_aligned():
    expected = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    assert torch.equal(dense(Causal(), 2, 5, CPU)[0], expected)


def test_the_fast_paths_are_taken_exactly_where_they_are_right():
    whole, flag = Plan(False, None), Plan(True, None)
    for rule in (Causal(), Causal() & Window(7), Window(9) & Causal() & Everything()):
        assert plan(rule, 7, 7, CPU) == flag
        assert plan(rule, 1, 7, CPU) == whole
        assert plan(rule, 3, 7, CPU).dense is not None
    for rule in (Everything(), Window(7)):
        assert plan(rule, 7, 7, CPU) == plan(rule, 3, 7, CPU) == whole
    for rule in (Causal() & Window(6), Window(1), Causal() | Prefix(2), Causal() | Everything()):
        assert plan(rule, 7, 7, CPU).dense is not None
    assert plan(Causal() & Window(6), 1, 7, CPU).dense is not None
    for size, width, window in ((7, 1, 1), (8, 2, 2), (7, 2, 0), (41, 10, 10)):
        made = plan(Window(width) & Causal(), size, size, CPU)
        assert made.window == window and (made.dense is None) == bool(window)
        assert plan(Causal() & Window(width), 3, size, CPU).dense is not None, "with a cache"
    documents = Document(torch.zeros(2, 7))
    assert plan(Causal() & documents, 7, 7, CPU).dense.shape == (2, 1, 7, 7)


ATOMS: list[tuple[Rule, Callable[[int, int, int], bool]]] = [
    (case.rule, case.sees) for case in CASES.values()
]


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    picks=st.lists(st.sampled_from(range(len(ATOMS))), min_size=2, max_size=4),
    signs=st.lists(st.booleans(), min_size=3, max_size=3),
    queries=st.integers(1, LENGTH),
)
def test_any_composition_is_the_composition_of_the_definitions(picks, signs, queries):
    rule, sees = ATOMS[picks[0]]
    for pick, both in zip(picks[1:], signs, strict=False):
        other, also = ATOMS[pick]
        rule = rule & other if both else rule | other
        before = sees
        sees = (
            (lambda b, i, j, f=before, g=also: f(b, i, j) and g(b, i, j))
            if both
            else (lambda b, i, j, f=before, g=also: f(b, i, j) or g(b, i, j))
        )
    offset, mask = LENGTH - queries, dense(rule, queries, LENGTH, CPU)
    for b in range(rule.rows):
        for i in range(queries):
            assert mask[b, i].tolist() == [sees(b, offset + i, j) for j in range(LENGTH)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_query_that_sees_nothing_gets_zeros_and_no_gradient(dtype):
    query = torch.randn(2, 4, 5, 6, dtype=dtype, requires_grad=True)
    key, value = torch.randn(2, 2, 2, 7, 6, dtype=dtype)
    visible = torch.rand(2, 1, 5, 7) < 0.5
    visible[..., 0] = True
    visible[0, :, 3] = False
    for out in (
        attend(query, key, value, Plan(False, visible)),
        naive_attention(query, key, value, visible)[0],
    ):
        assert not out[0, :, 3].any()
        assert out[1, :, 3].abs().min() > 0
        (gradient,) = torch.autograd.grad(out.float().sum(), query)
        assert gradient.isfinite().all()
        assert not gradient[0, :, 3].any()


def test_a_row_of_padding_alone_gives_zeros():
    query, key, value = torch.randn(3, 2, 4, 6, 16)
    out = attend(query, key, value, plan(Padding(torch.tensor([0, 3])), 6, 6, CPU))
    assert not out[0].any() and out[1].abs().min() > 0


def test_random_links_depend_on_the_seed_alone():
    first, again, other = (Random(50, 4, seed) for seed in (1, 1, 2))
    assert torch.equal(first.linked, again.linked)
    assert not torch.equal(first.linked, other.linked)
    assert (first.linked.sum(1) == 4).all()
    with pytest.raises(UserError, match="1 to 5 links"):
        Random(50, 6, size=10)


def test_a_window_without_the_token_itself_is_refused():
    with pytest.raises(UserError, match="0 is too small"):
        Window(0)


def test_sparse_patterns_are_sparse():
    length = 512
    flags = torch.zeros(1, length, dtype=torch.bool)
    flags[:, :2] = True
    bigbird = Window(17) | Global(flags) | Random(length, 3)
    # 33 in the window, 3 random, 4 global rows and columns, less what they share.
    assert density(bigbird, length, length) == pytest.approx((33 + 3 + 4) / length, rel=0.05)
    assert density(Causal() & Window(32), length, length) == pytest.approx(32 / length, rel=0.05)
