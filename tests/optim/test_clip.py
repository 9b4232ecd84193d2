"""Clipping: the global norm in fp32, its effect, and non-finite gradients left visible."""

from __future__ import annotations

import pytest
import torch

from groundup.optim.clip import clip_global_norm, clip_gradients, clip_value


def parameters_with_gradients(dtype=torch.float32):
    torch.manual_seed(0)
    shapes = [(3, 5), (7,), (2, 4, 3), (1,)]
    parameters = [torch.nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in shapes]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter) * 3
    return [*parameters, torch.nn.Parameter(torch.zeros(4))]  # the last has no gradient


@pytest.mark.parametrize("max_norm", [0.7, 1e6])
def test_same_as_torch(max_norm):
    ours, theirs = parameters_with_gradients(), parameters_with_gradients()
    norm = clip_global_norm(ours, max_norm)
    assert norm.item() == pytest.approx(
        torch.nn.utils.clip_grad_norm_(theirs, max_norm).item(), rel=1e-6
    )
    for a, b in zip(ours[:-1], theirs[:-1], strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-7)


def test_zero_only_measures():
    parameters = parameters_with_gradients()
    before = [p.grad.clone() for p in parameters[:-1]]
    norm = clip_global_norm(parameters, 0.0)
    assert norm.item() == pytest.approx(torch.cat([g.flatten() for g in before]).norm().item())
    for parameter, gradient in zip(parameters, before, strict=False):
        assert torch.equal(parameter.grad, gradient)


def test_bf16_gradients_are_measured_in_fp32():
    parameter = torch.nn.Parameter(torch.zeros(100_000, dtype=torch.bfloat16))
    parameter.grad = torch.full_like(parameter, 0.01)
    norm = clip_global_norm([parameter], 0.0)
    assert norm.dtype == torch.float32
    assert norm.item() == pytest.approx(0.01001 * 100_000**0.5, rel=1e-3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_gradient_shows_in_the_norm_and_changes_nothing(bad):
    parameters = parameters_with_gradients()
    parameters[0].grad[1, 2] = bad
    before = [p.grad.clone() for p in parameters[:-1]]
    assert not clip_global_norm(parameters, 1.0).isfinite()
    for parameter, gradient in zip(parameters, before, strict=False):
        assert torch.equal(parameter.grad.nan_to_num(), gradient.nan_to_num())


def test_zero_gradients_stay_zero():
    parameter = torch.nn.Parameter(torch.ones(3, 2))
    parameter.grad = torch.zeros(3, 2)
    assert clip_global_norm([parameter], 1.0).item() == 0
    assert torch.equal(parameter.grad, torch.zeros(3, 2))


def test_no_gradients_at_all():
    assert clip_global_norm([torch.nn.Parameter(torch.ones(3))], 1.0).item() == 0


def test_value_clipping():
    parameters = parameters_with_gradients()
    expected = [p.grad.clamp(-0.5, 0.5) for p in parameters[:-1]]
    clip_value(parameters, 0.5)
    for parameter, gradient in zip(parameters, expected, strict=False):
        assert torch.equal(parameter.grad, gradient)


def test_the_norm_is_clipped_before_the_values():
    ours, theirs = parameters_with_gradients(), parameters_with_gradients()
    norm = clip_gradients(iter(ours), 2.0, 0.3)
    assert norm == clip_global_norm(theirs, 2.0)
    clip_value(theirs, 0.3)
    for a, b in zip(ours[:-1], theirs[:-1], strict=True):
        assert torch.equal(a.grad, b.grad)
    assert max(p.grad.abs().max() for p in ours[:-1]) == pytest.approx(0.3)


def test_what_is_not_finite_is_not_hidden_by_clamping():
    parameters = parameters_with_gradients()
    parameters[0].grad[0, 0] = float("inf")
    assert not clip_gradients(parameters, 1.0, 0.5).isfinite()
