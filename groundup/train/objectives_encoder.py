"""What encoders and encoder-decoders minimise: sums over targets, as in `objectives`.

Both read rows of many lengths, padded with `pad_id`, which no text holds: where it stands nothing
is seen.
"""

from __future__ import annotations

from torch import Tensor, nn

from groundup.config import require
from groundup.models.encoder import Encoder
from groundup.models.encoder_decoder import EncoderDecoder
from groundup.train.objectives import cross_entropy_sum


class LabelLoss(nn.Module):
    """Summed cross-entropy of an encoder's head, in nats, whichever head that is.

    `(B, T) ids -> ()`, with targets (B, T) for a masked or token head, (B,) or (B, 1) for a
    sequence head; those marked IGNORE add nothing. `groundup.data.corruption.mask_tokens` makes
    masked inputs and their targets.
    """

    def __init__(self, model: Encoder, pad_id: int) -> None:
        super().__init__()
        require(model.head is not None, "The encoder has no head to train: set head in its config.")
        self.model, self.pad_id = model, pad_id

    def forward(self, inputs: Tensor, targets: Tensor, documents: Tensor | None = None) -> Tensor:
        require(documents is None, "An encoder reads one text a row; leave `documents` out.")
        return cross_entropy_sum(self.model(inputs, inputs != self.pad_id), targets)


class SequenceToSequenceLoss(nn.Module):
    """Summed cross-entropy of each target token, given the source and the true tokens before it.

    `(B, S) source ids, (B, T) targets -> ()`: teacher forcing; targets marked IGNORE add nothing.
    """

    def __init__(self, model: EncoderDecoder, pad_id: int) -> None:
        super().__init__()
        self.model, self.pad_id = model, pad_id

    def forward(self, inputs: Tensor, targets: Tensor, documents: Tensor | None = None) -> Tensor:
        require(documents is None, "A source is one text a row; leave `documents` out.")
        logits = self.model(inputs, self.model.shift_right(targets), inputs != self.pad_id)
        return cross_entropy_sum(logits, targets)
