"""Experts under torch.compile: the same losses, and the same experts as busy."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from groundup.models.config import ExpertsConfig
from groundup.models.decoder import Decoder
from groundup.models.presets import qwen3, with_experts
from groundup.nn.grouped_linear import _opaque, grouped_linear
from groundup.nn.moe import balance_experts
from groundup.train.objectives import NextTokenLoss

# inductor's own imports, and what dynamo looks at where a capacity ends its graph
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
]


def train(
    backend: str | None, dtype: torch.dtype, hidden: int = 40, **experts: Any
) -> tuple[list[float], list[Any]]:
    """Six steps: their losses, and the experts' shares."""
    shape = qwen3(
        vocab_size=131, width=24, num_layers=1, num_heads=3, context_length=53,
        feed_forward_width=hidden,
    )  # fmt: skip
    torch.manual_seed(0)
    options: Any = {"num_experts": 5, "top_k": 2} | experts
    model = Decoder(with_experts(shape, ExpertsConfig(**options))).train()
    loss = NextTokenLoss(model)
    whole = options.get("capacity_factor") is None
    run = loss if backend is None else torch.compile(loss, backend=backend, fullgraph=whole)
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


@pytest.mark.parametrize(
    ("hidden", "options"),
    [
        (37, {"shared_width": 17, "balance": "bias"}),
        (40, {"capacity_factor": 1.0, "score": "sigmoid"}),
    ],
    ids=["whole", "with-capacity"],
)
def test_the_step_traces_with_experts(hidden: int, options: dict[str, Any]) -> None:
    """Dynamo alone, without the C++ compiler; one graph, unless experts can be full."""
    torch.compiler.reset()
    expected, busy = train(None, torch.float32, hidden, **options)
    losses, found = train("eager", torch.float32, hidden, **options)
    assert losses == pytest.approx(expected, rel=1e-6) and found == busy


@pytest.mark.parametrize("widths", [(24, 40), (23, 37)])
def test_the_opaque_operation_is_the_product(widths: tuple[int, int]) -> None:
    counts = torch.tensor([3, 0, 11, 1])
    x = torch.randn(15, widths[0], requires_grad=True)
    weight = torch.randn(4, widths[1], widths[0], requires_grad=True)
    found, expected = _opaque(x, weight, counts), grouped_linear(x, weight, counts)
    torch.testing.assert_close(found, expected)
    slope = torch.randn(expected.shape)
    pairs = (torch.autograd.grad(y, (x, weight), slope) for y in (found, expected))
    for mine, reference in zip(*pairs, strict=True):
        torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-5)
    torch.library.opcheck(_opaque, (x, weight, counts))


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
