"""What recurrent language models minimise: text read on from where the last step ended."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from groundup.config import require
from groundup.models.recurrent import RecurrentModel
from groundup.train.objectives import cross_entropy_sum


class CarriedStateLoss(nn.Module):
    """Summed cross-entropy of the next token, in nats, each row read on from its last state.

    `(B, T) ids, (B, T) targets -> ()`. Gradients stop where a row begins, what was read before does
    not: truncated backpropagation in time, Williams and Peng 1990. For a loader whose row r of a
    step continues row r of the step before; a step has `rows` of them, in calls of any size. In
    eval mode every row is read from its beginning and the state stays as it was.

    With rows that do not go on from each other, `NextTokenLoss` starts each from zeros.
    """

    def __init__(self, model: RecurrentModel, rows: int) -> None:
        super().__init__()
        self.model, self.num_rows = model, rows
        self.state = model.init_hidden(rows)
        """Each (L, rows, C). Not buffers: a process has its own."""
        self._next = 0

    def forward(self, inputs: Tensor, targets: Tensor, documents: Tensor | None = None) -> Tensor:
        require(documents is None, "A state is carried through one stream; leave `documents` out.")
        if not self.training:
            return cross_entropy_sum(self.model.read(inputs)[0], targets)
        start, stop = self._next, self._next + len(inputs)
        assert stop <= self.num_rows, f"{stop} rows in a step that should have {self.num_rows}"
        before = tuple(part[:, start:stop].clone() for part in self.state)
        logits, after = self.model.read(inputs, before)
        with torch.no_grad():
            for part, new in zip(self.state, after, strict=True):
                part[:, start:stop] = new.detach()
        self._next = stop % self.num_rows
        return cross_entropy_sum(logits, targets)
