"""BatchNorm against torch's three classes: outputs, gradients and running statistics."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from groundup.config import UserError
from groundup.nn.batch_norm import BatchNorm

SHAPES = {
    "features": ((7, 5), nn.BatchNorm1d),
    "sequence": ((3, 5, 11), nn.BatchNorm1d),
    "image": ((3, 5, 7, 4), nn.BatchNorm2d),
    "one image": ((1, 5, 3, 9), nn.BatchNorm2d),
    "volume": ((2, 5, 3, 7, 4), nn.BatchNorm3d),
}


@pytest.fixture(params=SHAPES, ids=list(SHAPES))
def case(request):
    return SHAPES[request.param]


def _batch(shape: tuple[int, ...]) -> torch.Tensor:
    """Every channel with a mean and a spread of its own."""
    by_channel = (1, shape[1], *[1] * (len(shape) - 2))
    spread, mean = 0.3 + 2 * torch.rand(by_channel), 2 * torch.randn(by_channel)
    return spread * torch.randn(shape) + mean


def _assert_same(ours: nn.Module, theirs: nn.Module, x: torch.Tensor) -> None:
    """Equal outputs and equal gradients of input, weight and bias."""
    mine, reference = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, expected = ours(mine), theirs(reference)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    cotangent = torch.randn(out.shape)
    ours.zero_grad()
    theirs.zero_grad()
    out.backward(cotangent)
    expected.backward(cotangent)
    torch.testing.assert_close(mine.grad, reference.grad, atol=1e-5, rtol=1e-4)
    theirs_by_name = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad, theirs_by_name[name].grad, atol=1e-4, rtol=1e-4, msg=name
        )


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
@pytest.mark.parametrize("eps", [1e-5, 1e-2])
def test_training_then_evaluation_as_torch(case, affine, momentum, eps):
    shape, reference = case
    ours = BatchNorm(shape[1], eps, momentum, affine)
    theirs = reference(shape[1], eps, momentum, affine)
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    theirs.load_state_dict(ours.state_dict())
    for _ in range(4):
        _assert_same(ours, theirs, _batch(shape))
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        for name, value in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], value, atol=1e-6, rtol=1e-5)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    ours.eval()
    theirs.eval()
    _assert_same(ours, theirs, _batch(shape))
    for name, value in ours.state_dict().items():
        assert torch.equal(value, before[name]), f"evaluation moved {name}"


def test_the_two_variances():
    """Biased to normalise with, unbiased to remember."""
    norm = BatchNorm(1, eps=1e-12, momentum=1.0)
    x = torch.tensor([[1.0], [2.0], [6.0]])
    torch.testing.assert_close(norm(x), (x - 3) / (14 / 3) ** 0.5)
    torch.testing.assert_close(norm.running_mean, torch.tensor([3.0]))
    torch.testing.assert_close(norm.running_var, torch.tensor([14 / 2]))


def test_rows_depend_on_each_other_in_training_only():
    norm, x = BatchNorm(5), torch.randn(4, 5, 3)
    other = torch.cat((x[:2], 10 * x[2:]))
    assert not torch.allclose(norm(x)[:2], norm(other)[:2])
    norm.eval()
    assert torch.equal(norm(x)[:2], norm(other)[:2])


@pytest.mark.parametrize("shape", [(1, 5), (1, 5, 1), (1, 5, 1, 1)])
def test_one_value_per_channel_is_refused_in_training_only(shape):
    norm = BatchNorm(5)
    with pytest.raises(UserError, match=r"more than one value per channel.*\(1, 5.*has 1"):
        norm(torch.randn(shape))
    assert norm.num_batches_tracked == 0
    assert norm.eval()(torch.randn(shape)).shape == shape


def test_half_precision_comes_back_as_it_was_and_is_computed_in_fp32():
    x = _batch((9, 5, 4)).bfloat16()
    norm = BatchNorm(5)
    y = norm(x)
    assert y.dtype == torch.bfloat16 and norm.running_var.dtype == torch.float32
    assert torch.equal(y, BatchNorm(5)(x.float()).bfloat16())
