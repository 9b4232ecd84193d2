"""Encoders and encoder-decoders learn: losses ignore padding, and tiny tasks are solved."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from groundup.config import UserError
from groundup.data.batch import IGNORE
from groundup.data.corruption import mask_tokens
from groundup.models.encoder import Encoder
from groundup.models.encoder_config import EncoderConfig, HeadConfig, bert
from groundup.models.encoder_decoder import EncoderDecoder
from groundup.models.encoder_decoder_config import t5, transformer
from groundup.train.objectives_encoder import LabelLoss, SequenceToSequenceLoss

PAD, MASK = 0, 1


def encoder(head: HeadConfig | None, vocab_size: int = 20) -> EncoderConfig:
    config = bert(
        vocab_size=vocab_size, width=32, num_layers=2, num_heads=2, context_length=16, head=head
    )
    return dataclasses.replace(config, init_std=32**-0.5)  # 0.02 is for widths of hundreds


def learn(loss: nn.Module, batch: Callable[[], tuple[Tensor, Tensor]], steps: int) -> float:
    """Mean loss per target on a fresh batch after training."""
    optimizer = torch.optim.AdamW(loss.parameters(), lr=3e-3, weight_decay=0.0)
    for _ in range(steps):
        inputs, targets = batch()
        optimizer.zero_grad()
        (loss(inputs, targets) / (targets != IGNORE).sum()).backward()
        optimizer.step()
    inputs, targets = batch()
    with torch.no_grad():
        return (loss(inputs, targets) / (targets != IGNORE).sum()).item()


def test_padding_and_ignored_targets_add_nothing() -> None:
    model = Encoder(encoder(HeadConfig(kind="token", num_classes=3))).eval()
    loss = LabelLoss(model, PAD)
    ids, targets = torch.randint(2, 20, (2, 7)), torch.randint(0, 3, (2, 7))
    padded = nn.functional.pad(ids, (0, 4), value=PAD)
    ignored = nn.functional.pad(targets, (0, 4), value=IGNORE)
    torch.testing.assert_close(loss(padded, ignored), loss(ids, targets))
    for config in (t5, transformer):
        writer = EncoderDecoder(
            config(vocab_size=20, width=32, num_layers=1, num_heads=2, context_length=16)
        ).eval()
        both = SequenceToSequenceLoss(writer, PAD)
        expected = both(ids, ids[:, :5])
        ragged = nn.functional.pad(ids[:, :5], (0, 2), value=IGNORE)
        torch.testing.assert_close(both(padded, ragged), expected)


def test_a_masked_token_is_found_from_its_neighbours() -> None:
    """Rows count upwards, so either neighbour tells what is hidden."""
    generator = np.random.default_rng(0)

    def batch() -> tuple[Tensor, Tensor]:
        rows = generator.integers(0, 18, (32, 1)) + np.arange(8)
        ids = rows % 18 + 2
        inputs, targets = mask_tokens(
            ids, generator, mask_id=MASK, vocab_size=20, keep=(PAD,), rate=0.2
        )
        return torch.from_numpy(inputs), torch.from_numpy(targets)

    loss = LabelLoss(Encoder(encoder(HeadConfig(kind="masked"))), PAD)
    assert learn(loss, batch, 250) < 0.5  # nats; not knowing would cost ln 18 = 2.9


def test_a_text_is_classified_by_a_token_that_stands_anywhere() -> None:
    def batch() -> tuple[Tensor, Tensor]:
        ids = torch.randint(5, 20, (32, 9))
        labels = torch.randint(0, 3, (32,))
        ids[torch.arange(32), torch.randint(1, 9, (32,))] = labels + 2
        return ids, labels

    loss = LabelLoss(Encoder(encoder(HeadConfig(kind="sequence", num_classes=3))), PAD)
    assert learn(loss, batch, 150) < 0.2


def test_a_source_is_written_backwards() -> None:
    def batch() -> tuple[Tensor, Tensor]:
        ids = torch.randint(2, 20, (32, 6))
        return ids, ids.flip(1)

    config = transformer(vocab_size=20, width=48, num_layers=1, num_heads=2, context_length=16)
    loss = SequenceToSequenceLoss(EncoderDecoder(config), PAD)
    assert learn(loss, batch, 250) < 0.3


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(UserError, match="no head"):
        LabelLoss(Encoder(encoder(None)), PAD)
    loss = LabelLoss(Encoder(encoder(HeadConfig(kind="masked"))), PAD)
    with pytest.raises(UserError, match="documents"):
        loss(torch.ones(1, 2, dtype=torch.int64), None, torch.zeros(1, 2))
