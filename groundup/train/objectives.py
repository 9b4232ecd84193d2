"""What a training step minimises: a sum over target tokens, divided by their global number.

A sum, because a mean over each micro-batch would weigh a token by the company it keeps: with ragged
batches the mean of means is not the mean. The trainer divides once, by the number of targets in the
whole optimizer step, over all micro-batches and processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.data.batch import IGNORE, Batch
from groundup.models.decoder import Decoder
from groundup.nn.moe import auxiliary_loss
from groundup.train.fused_loss import can_fuse, head_cross_entropy_sum


class NextTokenLoss(nn.Module):
    """Summed cross-entropy of the next token, in nats.

    `(B, T) ids, (B, T) targets, (B, T) documents or None -> ()`. Targets are already shifted: the
    loader pairs each input with the token after it. Positions marked IGNORE add nothing, and a
    batch of nothing but IGNORE gives 0, not NaN.

    Where routers of experts have a balance loss, each target adds its gradient; the value stays the
    cross-entropy, so that losses of different models compare.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor, documents: Tensor | None = None) -> Tensor:
        model = self.model
        if isinstance(model, Decoder) and model.has_plain_head and can_fuse(model.head_weight):
            hidden = model.hidden(inputs, documents=documents).flatten(0, 1)
            loss = head_cross_entropy_sum(hidden, model.head_weight, targets.flatten())
        else:
            loss = cross_entropy_sum(model(inputs, documents=documents), targets)
        balance = auxiliary_loss(self.model) if self.training else None
        if balance is None:
            return loss
        return loss + (balance - balance.detach()) * (targets != IGNORE).sum()


def cross_entropy_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """`(B, T, V), (B, T) -> ()`: summed over targets, in fp32 whatever the logits are."""
    return F.cross_entropy(
        logits.flatten(0, -2).float(), targets.flatten(), ignore_index=IGNORE, reduction="sum"
    )


@torch.no_grad()
def estimate_loss(loss: nn.Module, batches: Iterable[Batch]) -> float:
    """Mean loss per target over held-out batches, in eval mode; the train mode is restored.

    NaN when there is no target at all.
    """
    was_training = loss.training
    loss.eval()
    total, count = 0.0, 0
    try:
        for batch in batches:
            total += loss(*batch.arguments).item()
            count += batch.num_targets
    finally:
        loss.train(was_training)
    return total / count if count else math.nan
