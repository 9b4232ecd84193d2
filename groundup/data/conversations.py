"""Conversations as training rows: rendered, split where too long, packed, and loaded in order.

Positions of a row attend only inside their own conversation. Only the tokens that the chat format
marks are predicted: what the assistant says, and the `<|end|>` that closes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from groundup.config import UserError, require
from groundup.data.batch import IGNORE, Batch
from groundup.data.documents import Document
from groundup.data.loader import document_numbers, row_slots
from groundup.data.manifest import (
    Manifest,
    open_manifest,
    record_file,
    verify_files,
    write_manifest,
)
from groundup.data.order import RowOrder
from groundup.data.packing import pack, split_points
from groundup.data.shards import Progress, token_dtype
from groundup.files import atomic_folder
from groundup.text.chat import Rendered, render
from groundup.text.tokenizer import Tokenizer

KIND = "conversations"
VERSION = 1


@dataclass(frozen=True, kw_only=True)
class PackedManifest(Manifest):
    """Counts of packed conversations.

    Dropped are conversations, and pieces of split ones, in which nothing is to be predicted.
    `num_positions` counts the places filled; the rest of `num_rows * length` is padding.
    """

    length: int
    num_rows: int
    num_positions: int
    num_targets: int
    num_conversations: int
    num_dropped_conversations: int
    num_dropped_pieces: int


class PackedConversations:
    """Rows of packed conversations in a folder, opened for reading (memory-mapped).

    `inputs` (R, T) are ids; a conversation starts with `<|bos|>`, and padding is `<|bos|>` too, so
    that each padded position is a document of its own. `targets` (R, T) int32 are the ids to
    predict, or IGNORE. Raises UserError when the folder is incomplete or was made with another
    tokenizer than the one whose fingerprint is given.
    """

    def __init__(self, folder: str | Path, tokenizer_fingerprint: str) -> None:
        self.folder = Path(folder)
        self.manifest = open_manifest(
            self.folder,
            PackedManifest,
            kind=KIND,
            version=VERSION,
            fingerprint=tokenizer_fingerprint,
        )
        self.bos_id = self.manifest.bos_id
        self.length = self.manifest.length
        self.inputs = np.load(self.folder / "inputs.npy", mmap_mode="r", allow_pickle=False)
        self.targets = np.load(self.folder / "targets.npy", mmap_mode="r", allow_pickle=False)

    def verify(self) -> None:
        """Read every byte; raise UserError where a sha256 is not the one in the manifest."""
        verify_files(self.folder, self.manifest.files)


class ConversationLoader:
    """Rows of packed conversations in an order set by (seed, step); each row once an epoch."""

    def __init__(
        self, packed: PackedConversations, length: int, rows_per_step: int, seed: int
    ) -> None:
        require(
            length == packed.length,
            f"{packed.folder} holds rows of {packed.length} tokens, but {length} are asked for; "
            "delete it to pack the conversations again.",
        )
        require(rows_per_step > 0, f"A step should have at least one row, not {rows_per_step}.")
        self.packed = packed
        self.length = length
        self.rows_per_step = rows_per_step
        self.order = RowOrder([packed.manifest.num_rows], [1.0], seed)

    @property
    def steps_per_epoch(self) -> float:
        return self.order.rows_per_pass / self.rows_per_step

    def step(self, index: int) -> Batch:
        return self.rows(index, 0, self.rows_per_step)

    def rows(self, index: int, start: int, stop: int) -> Batch:
        rows = self.order.locate(row_slots(index, start, stop, self.rows_per_step)).row
        return _packed_batch(self.packed, rows)


def conversation_batches(packed: PackedConversations, rows: int) -> Iterator[Batch]:
    """Batches of up to (rows, T): every row once, in order. For evaluation."""
    for start in range(0, packed.manifest.num_rows, rows):
        stop = min(start + rows, packed.manifest.num_rows)
        yield _packed_batch(packed, np.arange(start, stop))


def write_conversations(
    folder: str | Path,
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    length: int,
    progress: Progress | None = None,
) -> PackedManifest:
    """Render, split and pack the conversations of `documents` into `folder`, atomically.

    A conversation of n tokens takes n - 1 positions, one per prediction. Raises
    UserError when a document is not a conversation, or when no message of any is to be learned.
    """
    require(length > 0, f"The row length should be positive, not {length}.")
    pieces: list[Piece] = []
    conversations = dropped_conversations = dropped_pieces = 0
    for document in documents:
        cut = split_conversation(_render(tokenizer, document), length, tokenizer)
        trained = [piece for piece in cut if piece.num_targets]
        conversations += 1
        dropped_conversations += not trained
        dropped_pieces += len(cut) - len(trained) if trained else 0
        pieces += trained
        if progress is not None:
            progress(conversations)
    if not pieces:
        raise UserError(
            f"None of the {conversations} conversations for {folder} has a message to learn: a "
            "conversation needs at least one of role 'assistant'."
        )
    rows = pack([len(piece.inputs) for piece in pieces], length)
    with atomic_folder(folder) as temporary:
        _write_rows(temporary, pieces, rows, tokenizer, length)
        manifest = PackedManifest(
            version=VERSION,
            kind=KIND,
            tokenizer=tokenizer.fingerprint,
            bos_id=tokenizer.special["<|bos|>"],
            files=tuple(record_file(path) for path in sorted(temporary.iterdir())),
            length=length,
            num_rows=len(rows),
            num_positions=sum(len(piece.inputs) for piece in pieces),
            num_targets=sum(piece.num_targets for piece in pieces),
            num_conversations=conversations,
            num_dropped_conversations=dropped_conversations,
            num_dropped_pieces=dropped_pieces,
        )
        write_manifest(temporary, manifest)
    return manifest


class Piece(NamedTuple):
    """A conversation, or part of one: (N,) ids and the (N,) ids that follow them, or IGNORE."""

    inputs: np.ndarray
    targets: np.ndarray

    @property
    def num_targets(self) -> int:
        return int((self.targets != IGNORE).sum())


def split_conversation(rendered: Rendered, length: int, tokenizer: Tokenizer) -> list[Piece]:
    """Cut a rendered conversation into pieces of at most `length` positions.

    One that fits is one piece. A longer one is cut before a user message if that can be, else
    between messages, else inside a message, each piece as long as possible and starting with
    `<|bos|>`. Every token but the first `<|bos|>` is followed up in exactly one piece.
    """
    special = tokenizer.special
    ids = np.asarray(rendered.ids, dtype=np.int32)
    assert ids[0] == special["<|bos|>"], "a rendered conversation starts with <|bos|>"
    following = ids[1:]
    targets = np.where(rendered.mask[1:], following, np.int32(IGNORE))
    exchanges = np.flatnonzero(following == special["<|user|>"]).tolist()
    messages = (1 + np.flatnonzero(following == special["<|end|>"])).tolist()
    pieces = []
    for start, stop in split_points(len(following), length, [exchanges, messages]):
        inputs = np.concatenate([ids[:1], following[start : stop - 1]])
        pieces.append(Piece(inputs, targets[start:stop]))
    return pieces


def _render(tokenizer: Tokenizer, document: Document) -> Rendered:
    if not document.messages:
        raise UserError(
            f"Document {document.id!r} of {document.source!r} is not a conversation: it has no "
            "messages."
        )
    return render(tokenizer, document.messages)


def _write_rows(
    folder: Path, pieces: list[Piece], rows: list[list[int]], tokenizer: Tokenizer, length: int
) -> None:
    shape = len(rows), length
    dtype = token_dtype(tokenizer.vocab_size)
    inputs = np.lib.format.open_memmap(folder / "inputs.npy", "w+", dtype, shape)
    targets = np.lib.format.open_memmap(folder / "targets.npy", "w+", "<i4", shape)
    inputs[:] = tokenizer.special["<|bos|>"]
    targets[:] = IGNORE
    for row, members in enumerate(rows):
        start = 0
        for piece in (pieces[index] for index in members):
            inputs[row, start : start + len(piece.inputs)] = piece.inputs
            targets[row, start : start + len(piece.inputs)] = piece.targets
            start += len(piece.inputs)
    inputs.flush()
    targets.flush()


def _packed_batch(packed: PackedConversations, rows: np.ndarray) -> Batch:
    inputs = packed.inputs[rows].astype(np.int64)
    targets = packed.targets[rows].astype(np.int64)
    return Batch.from_numpy(inputs, targets, document_numbers(inputs, packed.bos_id))
