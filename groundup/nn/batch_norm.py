"""Batch normalisation: each channel scaled by what the batch, or the past, says of it.

Which numbers share one mean and one variance, for inputs (B, C), (B, C, T) or (B, C, H, W):

| norm      | averages over             | so one for each | in training | in evaluation     |
|-----------|---------------------------|-----------------|-------------|-------------------|
| BatchNorm | every axis but channels   | channel         | this batch  | the running means |
| LayerNorm | the width (the last axis) | token           | this token  | this token        |
| RMSNorm   | the width, no mean taken  | token           | this token  | this token        |

So a BatchNorm makes the rows of a batch depend on each other, and behaves differently in training
and in evaluation. Language models avoid both, with LayerNorm and RMSNorm (`groundup.nn.norms`).

torch has three classes for what is one rule: BatchNorm1d for (B, C) and (B, C, T), as of feature
vectors and sequences, BatchNorm2d for (B, C, H, W), images, BatchNorm3d for (B, C, Z, H, W),
volumes and videos. State dicts of all three load here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.config import require


class BatchNorm(nn.Module):
    """(B, C, ...) -> (B, C, ...): (x - mean) / sqrt(var + eps) · weight + bias, by channel.

    Training uses the batch's own statistics, its variance biased (÷ n), and moves the running ones
    towards them by `momentum`, there with the unbiased variance (÷ n - 1). Evaluation uses the
    running ones. Without a momentum they are the plain mean over all batches so far. Computed in
    fp32 and cast back to the input's dtype. Ioffe & Szegedy 2015, arXiv:1502.03167.

    Raises UserError in training when there is only one value per channel: its variance is 0 and the
    output would be the bias alone.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        channels: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
    ) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        if self.training:
            mean, variance = self._batch_statistics(y)
        else:
            mean, variance = self.running_mean, self.running_var
        y = (y - _by_channel(mean, x)) * _by_channel(torch.rsqrt(variance + self.eps), x)
        if self.weight is not None and self.bias is not None:
            y = y * _by_channel(self.weight, x) + _by_channel(self.bias, x)
        return y.to(x.dtype)

    def _batch_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, ...) -> mean (C,) and biased variance (C,), noted in the running ones."""
        count = x.numel() // x.shape[1]
        require(
            count > 1,
            f"BatchNorm in training needs more than one value per channel, but an input of shape "
            f"{tuple(x.shape)} has {count}: take a larger batch, or call eval() first.",
        )
        axes = [axis for axis in range(x.ndim) if axis != 1]
        mean = x.mean(axes)
        variance = (x - _by_channel(mean, x)).square().mean(axes)
        with torch.no_grad():
            self.num_batches_tracked += 1
            share = self.momentum
            if share is None:
                share = 1 / self.num_batches_tracked.item()
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance * (count / (count - 1)), share)
        return mean, variance

    def extra_repr(self) -> str:
        return f"{self.running_mean.shape[0]}, eps={self.eps}, momentum={self.momentum}"


def _by_channel(values: Tensor, x: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, ...), to broadcast over an input (B, C, ...)."""
    return values.view(1, -1, *[1] * (x.ndim - 2))
