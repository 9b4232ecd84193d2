"""Experts under torch.compile: the same losses, and the same experts as busy."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from groundup.models.config import ExpertsConfig
from groundup.models.decoder import Decoder
from groundup.models.presets import qwen3, with_experts
from groundup.nn.moe import balance_experts
from groundup.train.objectives import NextTokenLoss

# dynamo looks at gradients where a graph ends, and inductor imports what is deprecated
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]


def train(backend: str | None, dtype: torch.dtype, **experts: Any) -> tuple[list[float], list[Any]]:
    """Six steps: their losses, and the experts' shares."""
    shape = qwen3(
        vocab_size=131, width=24, num_layers=1, num_heads=3, context_length=53,
        feed_forward_width=40,
    )  # fmt: skip
    torch.manual_seed(0)
    options: Any = {"num_experts": 5, "top_k": 2} | experts
    model = Decoder(with_experts(shape, ExpertsConfig(**options))).train()
    loss = NextTokenLoss(model)
    run = loss if backend is None else torch.compile(loss, backend=backend)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    ids = torch.randint(0, 131, (6, 4, 37), generator=torch.Generator().manual_seed(1))
    losses, loads = [], []
    for rows in ids:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            value = run(rows, rows.roll(-1, 1)) / rows.numel()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
        loads.append(balance_experts(model)["load"])
    return losses, loads


def test_the_step_traces_with_experts() -> None:
    """Dynamo alone, without the C++ compiler: the same operations, so the same numbers."""
    torch.compiler.reset()
    options: Any = {"capacity_factor": 1.0, "shared_width": 17, "balance": "bias"}
    expected = train(None, torch.float32, **options)
    assert train("eager", torch.float32, **options) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-3)], ids=str
)
def test_the_compiled_step_has_equal_losses(dtype: torch.dtype, tolerance: float) -> None:
    torch.compiler.reset()
    expected, busy = train(None, dtype)
    losses, found = train("inductor", dtype)
    assert losses == pytest.approx(expected, rel=tolerance)
    if dtype == torch.float32:
        assert found == busy
