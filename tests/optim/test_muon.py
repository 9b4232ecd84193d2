"""Muon: the polynomials, the orthogonalisation, and the update around it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from groundup.optim.muon import Muon
from groundup.optim.orthogonalize import coefficients, orthogonalize, polar_express

SHAPES = [(7, 7), (5, 13), (13, 5), (4, 40), (40, 4), (1, 9)]


def through_svd(matrix, quintics):
    """The same polynomials on the singular values of a decomposition, in float64."""
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / matrix.double().norm()
    for a, b, c in quintics:
        s = a * s + b * s**3 + c * s**5
    return u @ torch.diag(s) @ v


@pytest.mark.parametrize("method", ["polar_express", "newton_schulz"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_iteration_acts_on_singular_values_alone(shape, method):
    torch.manual_seed(1)
    matrices = torch.randn(3, *shape)
    quintics = coefficients(method, 5)
    result = orthogonalize(matrices, quintics)
    for matrix, orthogonal in zip(matrices, result, strict=True):
        torch.testing.assert_close(
            orthogonal.double(), through_svd(matrix, quintics), rtol=0, atol=2e-4
        )


def test_more_steps_reach_the_polar_factor():
    torch.manual_seed(2)
    matrix = torch.randn(1, 6, 17)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    torch.testing.assert_close(
        orthogonalize(matrix, coefficients("polar_express", 9)), u @ v, rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ["polar_express", "newton_schulz"])
def test_five_steps_bring_all_but_the_smallest_values_near_one(method, dtype):
    torch.manual_seed(3)
    matrices = torch.randn(2, 24, 50).to(dtype)
    values = torch.linalg.svdvals(orthogonalize(matrices, coefficients(method, 5)).float())
    assert values.min() > 0.65 and values.max() < 1.25


@pytest.mark.parametrize("shape", [(12, 12), (12, 40)])
def test_a_matrix_of_low_rank_stays_within_bounds(shape):
    torch.manual_seed(9)
    rows, columns = shape
    matrix = torch.randn(1, rows, 2) @ torch.randn(1, 2, columns)
    values = torch.linalg.svdvals(orthogonalize(matrix, coefficients("polar_express", 6))[0])
    assert values[:2].min() > 0.85 and values[:2].max() < 1.15
    assert values[2:].max() < 0.1  # rounding errors are not blown up to full directions


def test_zero_stays_zero():
    for shape in ((3, 9), (9, 9)):
        zero = torch.zeros(2, *shape)
        assert torch.equal(orthogonalize(zero, coefficients("polar_express", 5)), zero)


def test_the_published_polar_express_coefficients():
    # Table in arXiv:2505.16932, before the safety factor.
    published = [
        (8.28721201814563, -23.595886519098837, 17.300387312530933),
        (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
        (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
        (3.3184196573706015, -2.488488024314874, 0.51004894012372),
        (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    ]
    for ours, theirs in zip(polar_express(5, safety=1.0), published, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-12)


def test_the_safety_factor_shrinks_the_argument_of_all_but_the_last():
    plain, safe = polar_express(3, safety=1.0), polar_express(3, safety=1.02)
    for (a, b, c), (sa, sb, sc) in zip(plain[:-1], safe[:-1], strict=True):
        x = 0.3
        assert a * (x / 1.02) + b * (x / 1.02) ** 3 + c * (x / 1.02) ** 5 == pytest.approx(
            sa * x + sb * x**3 + sc * x**5
        )
    assert plain[-1] == safe[-1]


def step_once(weights, gradients, **settings):
    parameters = [nn.Parameter(weight.clone()) for weight in weights]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    optimizer = Muon(parameters, **settings)
    optimizer.step()
    return [parameter.detach() for parameter in parameters]


def test_the_update_has_spectral_norm_lr_times_shape_scale():
    torch.manual_seed(4)
    shapes = [(30, 10), (10, 30), (8, 8)]
    weights = [torch.zeros(shape) for shape in shapes]
    moved = step_once(weights, [torch.randn(s) for s in shapes], lr=0.1, weight_decay=0.0, steps=9)
    for shape, update in zip(shapes, moved, strict=True):
        size = torch.linalg.matrix_norm(update, 2).item()
        assert size == pytest.approx(0.1 * math.sqrt(max(1, shape[0] / shape[1])), rel=1e-3)


def test_batching_same_shapes_changes_nothing():
    torch.manual_seed(5)
    weights = [torch.randn(6, 9) for _ in range(3)] + [torch.randn(9, 6)]
    gradients = [torch.randn_like(weight) for weight in weights]
    together = step_once(weights, gradients)
    for weight, gradient, result in zip(weights, gradients, together, strict=True):
        (alone,) = step_once([weight], [gradient])
        torch.testing.assert_close(result, alone, rtol=0, atol=1e-6)


def test_stacked_matrices_are_independent():
    torch.manual_seed(6)
    weight, gradient = torch.randn(4, 5, 3), torch.randn(4, 5, 3)
    (stacked,) = step_once([weight], [gradient])
    apart = step_once(list(weight), list(gradient))
    torch.testing.assert_close(stacked, torch.stack(apart), rtol=0, atol=1e-6)


def test_row_splits_equal_separate_matrices():
    torch.manual_seed(7)
    rows = (6, 3, 3)
    weight, gradient = torch.randn(12, 5), torch.randn(12, 5)
    fused = nn.Parameter(weight.clone())
    fused.grad = gradient.clone()
    Muon([{"params": [fused], "row_splits": {0: rows}}]).step()
    apart = step_once(weight.split(rows), gradient.split(rows))
    torch.testing.assert_close(fused.detach(), torch.cat(apart), rtol=0, atol=1e-6)
    (whole,) = step_once([weight], [gradient])
    assert (fused.detach() - whole).abs().max() > 1e-4


def test_cautious_decay_spares_what_the_update_grows():
    torch.manual_seed(8)
    weight, gradient = torch.randn(5, 8), torch.randn(5, 8)
    (plain,) = step_once([weight], [gradient], lr=0.1, weight_decay=0.0)
    (cautious,) = step_once([weight], [gradient], lr=0.1, weight_decay=0.5, cautious_decay=True)
    shrinks = weight * (weight - plain) > 0  # the update moves it towards zero
    expected = torch.where(shrinks, plain - 0.1 * 0.5 * weight, plain)
    torch.testing.assert_close(cautious, expected)


def test_a_parameter_without_gradient_is_left_alone():
    idle, active = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(3, 4))
    active.grad = torch.randn(3, 4)
    optimizer = Muon([idle, active])
    optimizer.step()
    assert torch.equal(idle, torch.ones(3, 4))
    assert not torch.equal(active, torch.ones(3, 4))
