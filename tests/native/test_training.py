"""A training step through the native kernels next to the same step through torch's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from groundup.models.decoder import Decoder
from groundup.models.presets import gpt2, qwen3
from groundup.native import build
from groundup.nn.masks import Causal, Document, Window, dense, plan
from groundup.train.objectives import NextTokenLoss

SHAPE: dict[str, Any] = {"vocab_size": 131, "num_layers": 2, "context_length": 64, "width": 64}
QWEN3 = qwen3(**SHAPE, num_heads=4, num_kv_heads=2, head_width=24)
CONFIGS = {
    "qwen3": QWEN3,
    "gpt2": gpt2(**SHAPE, num_heads=4),
    "windows": replace(QWEN3, attention=replace(QWEN3.attention, windows=(9, 0))),
}


def gradients(name: str, documents: bool, dtype: torch.dtype | None) -> dict[str, torch.Tensor]:
    """All gradients of one step, and the loss."""
    torch.manual_seed(1)
    model = Decoder(CONFIGS[name])
    ids = torch.randint(131, (3, 50))
    numbers = (torch.rand(3, 49) < 0.1).cumsum(1).int() if documents else None
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = NextTokenLoss(model)(ids[:, :-1], ids[:, 1:], numbers)
    (loss / ids.numel()).backward()
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {**found, "loss": loss.detach()}


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_gradients_are_as_near_to_fp32_as_torchs(
    name: str, documents: bool, tiles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = gradients(name, documents, torch.bfloat16)
    exact = gradients(name, documents, None)
    monkeypatch.setattr(build, "_load", lambda: (build.Status(None, "none"), None))
    theirs = gradients(name, documents, torch.bfloat16)
    assert any(not torch.equal(ours[key], theirs[key]) for key in ours)
    for key, truth in exact.items():
        error = (ours[key] - truth).norm()
        assert error <= 1.3 * (theirs[key] - truth).norm() + 0.003 * truth.norm(), key


def test_a_plan_of_spans_is_the_rule(tiles: None) -> None:
    torch.manual_seed(2)
    cpu = torch.device("cpu")
    numbers = (torch.rand(2, 40) < 0.2).cumsum(1).int()
    for rule in (
        Causal() & Window(7),
        Causal() & Document(numbers),
        Causal() & Document(numbers) & Window(5),
    ):
        found = plan(rule, 40, 40, cpu)
        assert found.first is not None and found.dense is None
        visible, bias = found.spelled_out(40, 40, cpu)
        assert bias is None
        whole = visible.broadcast_to(rule.rows, 1, 40, 40)[:, 0]
        assert torch.equal(whole, dense(rule, 40, 40, cpu))


def test_compiled_and_recomputed(tiles: None) -> None:
    torch.manual_seed(3)
    model = Decoder(QWEN3)
    loss, ids = NextTokenLoss(model), torch.randint(131, (2, 33))

    def step() -> list[torch.Tensor]:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss(ids[:, :-1], ids[:, 1:]).backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    eager = step()
    model.checkpointing = 1
    assert all(torch.equal(a, b) for a, b in zip(eager, step(), strict=True))
