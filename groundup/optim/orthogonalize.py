"""The nearest orthogonal matrix by matrix products only: what Muon does to every update.

The polar factor of M = U S V^T is U V^T: the same directions, every singular value set to 1. An odd
polynomial applied to M acts on its singular values alone, p(M) = U p(S) V^T, so a few quintics
that each push values in (0, 1] towards 1 get there without ever computing the decomposition.
"""

from __future__ import annotations

import functools
import math
from typing import Literal

import torch
from torch import Tensor

Coefficients = tuple[tuple[float, float, float], ...]
Method = Literal["polar_express", "newton_schulz"]
# Steep at zero at the price of leaving values anywhere in about 0.7 to 1.2; from
# https://kellerjordan.github.io/posts/muon/.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: Tensor, coefficients: Coefficients, eps: float = 1e-7) -> Tensor:
    """Approximate polar factor of each matrix of a batch. (N, R, C) -> (N, R, C), same dtype.

    Each (a, b, c) is one iteration X <- a X + b (X X^T) X + c (X X^T)^2 X. fp32 and bf16 both do.
    """
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices  # the Gram matrix below is then the smaller one
    # The Frobenius norm bounds the largest singular value, so all of them start in [0, 1].
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    # Counting products, the Gram form is cheaper from there on. It squares the singular values, so
    # bf16 would lose those below 1/16.
    by_gram = x.dtype == torch.float32 and x.size(-1) > 1.5 * x.size(-2)
    x = _iterate_gram(x, coefficients) if by_gram else _iterate(x, coefficients)
    return x.mT if tall else x


@functools.cache
def coefficients(method: Method, steps: int) -> Coefficients:
    """The quintics of a method, one (a, b, c) per iteration.

    "newton_schulz" repeats one steep quintic; "polar_express" computes the best composition.
    """
    if method == "newton_schulz":
        return (_NEWTON_SCHULZ,) * steps
    return polar_express(steps)


def polar_express(
    steps: int, smallest: float = 1e-3, cushion: float = 0.02407327424182761, safety: float = 1.01
) -> Coefficients:
    """The quintics whose composition is nearest to 1 on [smallest, 1] (arXiv:2505.16932).

    Each is the minimax quintic on the interval the ones before it leave. `cushion` keeps the
    interval from being so wide that low precision overflows on it, and all but the last leave
    `safety` of room above the largest singular value for rounding errors.
    """
    low, high = smallest, 1.0
    quintics = []
    for index in range(steps):
        a, b, c = _minimax_quintic(max(low, cushion * high), high)
        # Centre what was optimised on the cushioned interval for the true one.
        at_low = a * low + b * low**3 + c * low**5
        at_high = a * high + b * high**3 + c * high**5
        scale = 2 / (at_low + at_high)
        low, high = scale * at_low, 2 - scale * at_low
        room = safety if index < steps - 1 else 1.0
        quintics.append((scale * a / room, scale * b / room**3, scale * c / room**5))
    return tuple(quintics)


def _iterate(x: Tensor, coefficients: Coefficients) -> Tensor:
    for a, b, c in coefficients:
        gram = torch.bmm(x, x.mT)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x


def _iterate_gram(x: Tensor, coefficients: Coefficients) -> Tensor:
    """(N, R, C) -> (N, R, C): the same, but all iterations on R x R matrices.

    Each iteration is X <- P X with P = a I + b G + c G^2 and G = X X^T, which becomes P G P; the
    product of all P meets X once, at the end (arXiv:2505.16932, appendix F).
    """
    gram = torch.bmm(x, x.mT)
    product = None
    for index, (a, b, c) in enumerate(coefficients):
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        polynomial.diagonal(dim1=-2, dim2=-1).add_(a)
        product = polynomial if product is None else torch.bmm(polynomial, product)
        if index < len(coefficients) - 1:
            gram = torch.bmm(polynomial, torch.bmm(gram, polynomial))
    return x if product is None else torch.bmm(product, x)


def _minimax_quintic(low: float, high: float) -> tuple[float, float, float]:
    """The odd quintic with the least largest distance from 1 on [low, high] (Remez exchange).

    The best one misses by the same amount with alternating sign at four points: both ends and
    its two stationary points, which are found in turn with the coefficients.
    """
    if low / high > 1 - 5e-6:  # the limit; the linear system below becomes singular
        return 15 / 8 / high, -10 / 8 / high**3, 3 / 8 / high**5
    inner = ((3 * low + high) / 4, (low + 3 * high) / 4)
    ones = torch.ones(4, dtype=torch.float64)
    previous = math.inf
    while True:
        points = torch.tensor([low, *inner, high], dtype=torch.float64)
        signs = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
        system = torch.stack([points, points**3, points**5, signs], dim=1)
        a, b, c, error = torch.linalg.solve(system, ones).tolist()
        if abs(error - previous) < 1e-15:
            return a, b, c
        previous = error
        root = math.sqrt(9 * b * b - 20 * a * c)
        inner = (math.sqrt((-3 * b - root) / (10 * c)), math.sqrt((-3 * b + root) / (10 * c)))
