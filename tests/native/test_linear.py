"""The weight gradient and the cross-entropy kernel against fp64, next to torch's own in bf16."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from groundup.native import ops


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize(
    ("rows", "outputs", "depth"), [(1, 1, 1), (77, 33, 129), (512, 32, 64), (1030, 70, 50)]
)
def test_weight_gradient(rows: int, outputs: int, depth: int) -> None:
    torch.manual_seed(rows)
    gradient = torch.randn(rows, outputs).bfloat16()
    inputs = torch.randn(rows, depth + 5).bfloat16()[:, 2 : depth + 2]  # rows apart, and unaligned
    found = ops.weight_gradient(gradient, inputs)
    exact = gradient.double().T @ inputs.double()
    assert found.dtype == torch.float32 and found.shape == (outputs, depth)
    assert (found.double() - exact).norm() <= 1e-6 * exact.norm()


@pytest.mark.usefixtures("tiles")
def test_weight_gradient_of_columns_is_contiguous_first() -> None:
    gradient, inputs = torch.randn(20, 40).bfloat16().T, torch.randn(40, 24).bfloat16()
    exact = gradient.double().T @ inputs.double()
    assert (ops.weight_gradient(gradient, inputs).double() - exact).norm() <= 1e-6 * exact.norm()


@pytest.mark.parametrize("size", [1, 15, 131, 4096])
def test_cross_entropy(kernels: str, size: int) -> None:
    torch.manual_seed(size)
    logits = (torch.randn(23, size) * 5).bfloat16()
    targets = torch.randint(size, (23,))
    targets[4] = targets[9] = -100
    exact = logits.double().requires_grad_()
    losses = F.cross_entropy(exact, targets, reduction="none")
    losses.sum().backward()
    assert exact.grad is not None
    ours = logits.clone()
    found = ops.cross_entropy_(ours, targets)
    assert torch.allclose(found.double(), losses, rtol=1e-5, atol=1e-5)
    assert torch.equal(ours, exact.grad.bfloat16()) or (
        (ours.double() - exact.grad).norm() <= 1.05 * (exact.grad.bfloat16() - exact.grad).norm()
    )
    assert found[4] == 0 and not ours[9].any()


def test_cross_entropy_of_a_row_that_is_not_finite(kernels: str) -> None:
    logits = torch.zeros(3, 40).bfloat16()
    logits[1, 7] = torch.nan
    losses = ops.cross_entropy_(logits, torch.tensor([1, 2, 3]))
    assert losses[1].isnan() and losses[[0, 2]].isfinite().all()


def test_a_target_beyond_the_vocabulary_is_refused(kernels: str) -> None:
    with pytest.raises(AssertionError, match="vocabulary"):
        ops.cross_entropy_(torch.zeros(2, 5).bfloat16(), torch.tensor([1, 5]))
