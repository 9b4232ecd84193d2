"""Mask rules and the dispatcher: every plan equals the dense reference."""

from __future__ import annotations

import pytest
import torch

from groundup.nn.attention import attend, naive_attention
from groundup.nn.masks import Causal, Document, Plan, Rule, dense, plan

CPU = torch.device("cpu")


def test_causal_is_bottom_right_aligned():
    expected = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    assert torch.equal(dense(Causal(), 2, 5, CPU)[0], expected)


def test_document_joins_with_causal():
    rule = Causal() & Document(torch.tensor([[7, 7, 3, 3]]))
    expected = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]).bool()
    assert torch.equal(dense(rule, 4, 4, CPU)[0], expected)


def test_the_fast_path_is_taken_exactly_where_it_is_right():
    assert plan(Causal(), 7, 7, CPU) == Plan(True, None)
    assert plan(Causal(), 1, 7, CPU) == Plan(False, None)
    assert plan(Causal(), 3, 7, CPU).dense is not None
    documents = Document(torch.zeros(2, 7))
    assert plan(Causal() & documents, 7, 7, CPU).dense.shape == (2, 1, 7, 7)


@pytest.mark.parametrize(("queries", "keys"), [(11, 11), (1, 11), (4, 11)])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 6])
def test_every_plan_equals_the_naive_formula(queries, keys, num_kv_heads):
    numbers = torch.randint(0, 2, (3, keys)).cumsum(1)
    query = torch.randn(3, 6, queries, 10)
    key, value = torch.randn(2, 3, num_kv_heads, keys, 10)
    rules: list[Rule] = [Causal(), Causal() & Document(numbers)]
    for rule in rules:
        fast = attend(query, key, value, plan(rule, queries, keys, CPU))
        slow, weights = naive_attention(query, key, value, dense(rule, queries, keys, CPU)[:, None])
        torch.testing.assert_close(fast, slow, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, 6, queries))


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
