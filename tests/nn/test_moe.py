"""The mixture of experts against its definition, and against a plain network where it is one."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.config import UserError
from groundup.nn.config import ExpertsConfig, FeedForwardConfig
from groundup.nn.feed_forward import build_feed_forward
from groundup.nn.grouped_linear import grouped_linear
from groundup.nn.init import initialize
from groundup.nn.moe import (
    MixtureOfExperts,
    Router,
    auxiliary_loss,
    balance_experts,
    balance_loss,
    grouped_experts,
    load_of,
    loop_experts,
    within_capacity,
)


def mixture(width: int = 20, hidden: int = 35, kind: str = "gated", **experts) -> MixtureOfExperts:
    config = FeedForwardConfig(
        kind=kind,  # type: ignore[arg-type]
        width=hidden,
        experts=ExpertsConfig(**({"num_experts": 5, "top_k": 2} | experts)),
    )
    module = build_feed_forward(config, width)
    assert isinstance(module, MixtureOfExperts)
    torch.manual_seed(3)
    initialize(module, 0.3, 1)
    return module


def both_ways(module: MixtureOfExperts, x: torch.Tensor) -> list[list[torch.Tensor]]:
    """Output and gradients of the loop, and of the grouped path."""
    gate = None if module.gate is None else module.gate.weight
    inputs = [x, *module.parameters()]
    results = []
    for run in (loop_experts, grouped_experts):
        y = run(x, module.router(x), gate, module.up.weight, module.down.weight, module.activation)
        slope = torch.linspace(-1, 1, y.numel()).view_as(y).to(y)
        results.append([y, *torch.autograd.grad(y, inputs, slope)])
    return results


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    number=st.integers(1, 7),
    k=st.integers(1, 4),
    tokens=st.integers(1, 30),
    width=st.sampled_from([8, 20, 33]),
    kind=st.sampled_from(["gated", "plain"]),
    capacity=st.sampled_from([None, 0.5, 1.25]),
    score=st.sampled_from(["softmax", "sigmoid"]),
)
def test_grouped_equals_the_loop_both_ways(number, k, tokens, width, kind, capacity, score):
    module = mixture(
        width,
        24 if width == 8 else 35,
        kind,
        num_experts=number,
        top_k=min(k, number),
        capacity_factor=capacity,
        score=score,
    )
    x = torch.randn(tokens, width, requires_grad=True)
    loop, grouped = both_ways(module, x)
    for expected, found in zip(loop, grouped, strict=True):
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("inputs", "outputs"), [(16, 24), (13, 7)])
def test_a_grouped_product_is_a_product_per_expert(dtype, inputs, outputs):
    counts = torch.tensor([3, 0, 11, 1])
    x = torch.randn(15, inputs, dtype=dtype)
    weight = torch.randn(4, outputs, inputs, dtype=dtype)
    expected = torch.cat([x[:3] @ weight[0].T, x[3:14] @ weight[2].T, x[14:] @ weight[3].T])
    torch.testing.assert_close(grouped_linear(x, weight, counts), expected)


def test_under_autocast_experts_compute_in_the_low_precision():
    module = mixture(16, 24)
    x = torch.randn(2, 9, 16)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
    torch.testing.assert_close(y.float(), module(x), atol=0.1, rtol=0.1)


@pytest.mark.parametrize("kind", ["gated", "plain"])
def test_one_expert_is_the_plain_network(kind):
    module = mixture(18, 29, kind, num_experts=1, top_k=1)
    plain = build_feed_forward(FeedForwardConfig(kind=kind, width=29), 18)
    state = {
        name: tensor[0] for name, tensor in module.state_dict().items() if "router" not in name
    }
    plain.load_state_dict(state)
    x = torch.randn(3, 7, 18)
    torch.testing.assert_close(module(x), plain(x))


def test_all_experts_chosen_is_the_weighted_sum_of_all():
    module = mixture(num_experts=3, top_k=3, scale=2.5)
    x = torch.randn(11, 20)
    assert module.gate is not None
    probabilities = (x @ module.router.scorer.weight.T).softmax(-1)
    expected = torch.zeros_like(x)
    for n in range(3):
        hidden = module.activation(x @ module.gate.weight[n].T) * (x @ module.up.weight[n].T)
        expected += 2.5 * probabilities[:, n, None] * (hidden @ module.down.weight[n].T)
    torch.testing.assert_close(module(x[None])[0], expected, atol=1e-5, rtol=1e-4)


def test_shared_experts_see_every_token():
    module = mixture(shared_width=17)
    x = torch.randn(2, 5, 20)
    without = dataclasses.replace(module.config, shared_width=0)
    alone = build_feed_forward(FeedForwardConfig(width=35, experts=without), 20)
    own = {k: v for k, v in module.state_dict().items() if not k.startswith("shared")}
    alone.load_state_dict(own)
    assert module.shared is not None
    torch.testing.assert_close(module(x), alone(x) + module.shared(x))


def test_the_lower_number_wins_a_tie():
    router = Router(4, ExpertsConfig(num_experts=6, top_k=3))
    torch.nn.init.zeros_(router.scorer.weight)
    routing = router(torch.randn(9, 4))
    assert routing.experts.tolist() == [[0, 1, 2]] * 9
    torch.testing.assert_close(routing.weights, torch.full((9, 3), 1 / 3))


def test_the_bias_changes_the_choice_and_not_the_weights():
    router = Router(4, ExpertsConfig(num_experts=4, top_k=1, balance="bias", normalize=False))
    torch.nn.init.zeros_(router.scorer.weight)
    assert router.bias is not None
    router.bias[2] = 1.0
    routing = router(torch.randn(5, 4))
    assert routing.experts.flatten().tolist() == [2] * 5
    torch.testing.assert_close(routing.weights, torch.full((5, 1), 0.25))


def test_full_experts_turn_away_second_choices_first():
    experts = torch.tensor([[0, 1], [0, 1], [1, 0], [0, 1]])
    kept = within_capacity(experts, 3, 2)
    assert kept.tolist() == [[True, True], [True, False], [True, False], [False, False]]


def test_capacity_acts_in_training_only():
    module = mixture(capacity_factor=0.2)
    x = torch.randn(1, 40, 20)
    module.train()
    module(x)
    (dropped,) = balance_experts(module)["dropped"]
    assert 0.3 < dropped < 0.9
    module.eval()
    assert module.router(x[0]).kept is None


def test_a_token_that_everyone_turned_away_gets_nothing():
    module = mixture(num_experts=2, top_k=1, capacity_factor=1e-6).train()
    x = torch.randn(1, 30, 20)
    rows_with_output = module(x)[0].abs().sum(-1) > 0
    assert 1 <= rows_with_output.sum() <= 2


def test_the_balance_loss_is_one_when_balanced_and_grows_with_imbalance():
    router = Router(6, ExpertsConfig(num_experts=6, top_k=1))
    with torch.no_grad():
        router.scorer.weight.copy_(3 * torch.eye(6))
    even = balance_loss(router(torch.eye(6)))
    crowded = balance_loss(router(torch.eye(6)[:1].expand(6, 6)))
    assert even.item() == pytest.approx(1.0, abs=1e-6)
    assert crowded > 3


def test_the_bias_follows_the_load_and_the_counts_restart():
    module = mixture(num_experts=4, top_k=1, balance="bias", bias_rate=0.5).train()
    assert module.router.bias is not None
    module.load, module.dropped = torch.tensor([6.0, 2.0, 0.0, 0.0]), torch.zeros(())
    figures = balance_experts(module, lambda numbers: [2 * n for n in numbers])
    assert module.router.bias.tolist() == [-0.5, 0.0, 0.5, 0.5]
    assert figures["load"] == [[0.75, 0.25, 0.0, 0.0]]
    assert figures["entropy"][0] == pytest.approx(0.8113 / 2, abs=1e-3)
    assert module.load is None and balance_experts(module) == {}


@pytest.mark.parametrize("balance", ["loss", "bias"])
def test_a_crowded_router_becomes_even(balance):
    """All tokens prefer one expert at first; after a short while each has its share."""
    module = mixture(12, 8, num_experts=4, top_k=1, balance=balance, bias_rate=0.004).train()
    x = torch.randn(1, 256, 12) + 1.0
    with torch.no_grad():
        module.router.scorer.weight[0] += 0.3
    optimizer = torch.optim.SGD(module.router.parameters(), lr=0.5)
    first, last = 0.0, 0.0
    for step in range(150):
        module(x)
        loss = auxiliary_loss(module)
        if loss is not None:
            (loss / 0.01).backward()
            optimizer.step()
            optimizer.zero_grad()
        (load,) = balance_experts(module)["load"]
        first, last = (max(load) if step == 0 else first), max(load)
    assert first > 0.6 and last < 0.33


def test_evaluation_leaves_no_trace():
    module = mixture().eval()
    module(torch.randn(2, 3, 20))
    assert module.load is None and module.auxiliary_loss is None


def test_a_meta_model_starts_like_any_other():
    config = FeedForwardConfig(
        width=9, experts=ExpertsConfig(num_experts=3, top_k=1, balance="bias")
    )
    with torch.device("meta"):
        module = build_feed_forward(config, 6)
    module = module.to_empty(device="cpu")
    for tensor in module.state_dict().values():
        tensor.fill_(torch.nan)
    initialize(module, 0.02, 1)
    assert all(torch.isfinite(tensor).all() for tensor in module.state_dict().values())


def test_load_counts_choices():
    assert load_of(torch.tensor([[0, 2], [2, 3]]), 5).tolist() == [1, 0, 2, 1, 0]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"top_k": 6}, "top_k 6 is more than"),
        ({"num_experts": 0}, "num_experts should be at least 1"),
        ({"score": "tanh"}, "score cannot be 'tanh'"),
        ({"capacity_factor": 0.0}, "capacity_factor should be above 0"),
        ({"shared_width": -1}, "shared_width should be at least 0"),
    ],
)
def test_impossible_experts_are_refused(changes, complaint):
    with pytest.raises(UserError, match=complaint):
        ExpertsConfig(**({"num_experts": 5, "top_k": 2} | changes))


def test_experts_with_biases_are_refused():
    with pytest.raises(UserError, match="bias is not available"):
        FeedForwardConfig(width=8, bias=True, experts=ExpertsConfig(num_experts=2, top_k=1))
