"""Conversations as training rows: rendered, split where too long, packed, and loaded in order.

Positions of a row attend only inside their own conversation. Only the tokens that the chat format
marks are predicted: what the assistant says, and the `<|end|>` that closes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from groundup.config import UserError, require
from groundup.data.batch import IGNORE, Batch
from groundup.data.documents import Document
from groundup.data.loader import row_slots
from groundup.data.manifest import (
    Manifest,
    open_manifest,
    record_file,
    verify_files,
    write_manifest,
)
from groundup.data.order import RowOrder
from groundup.data.packing import Span, cut_units, pack
from groundup.data.shards import Progress, token_dtype
from groundup.files import atomic_folder
from groundup.text.chat import Rendered, render
from groundup.text.tokenizer import Tokenizer

KIND = "conversations"
VERSION = 2


@dataclass(frozen=True, kw_only=True)
class PackedManifest(Manifest):
    """Counts of packed conversations.

    Dropped are conversations in which nothing is to be predicted. `num_positions` counts the places
    filled; the rest of `num_rows * length` is padding.
    """

    length: int
    num_rows: int
    num_positions: int
    num_targets: int
    num_conversations: int
    num_dropped: int


class PackedConversations:
    """Rows of packed conversations in a folder, opened for reading (memory-mapped).

    `inputs` (R, T) are ids; a conversation starts with `<|bos|>`, and padding is `<|bos|>` too.
    `targets` (R, T) int32 are the ids to predict, or IGNORE. `documents` (R, T) int32 number the
    conversations of a row, and each padded position apart: in some models' formats every exchange
    begins with `<|bos|>`, so that the ids do not tell. Raises UserError when the folder is
    incomplete or was made with another tokenizer than the one whose fingerprint is given.
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
        self.documents = np.load(self.folder / "documents.npy", mmap_mode="r", allow_pickle=False)

    def verify(self) -> None:
        """Read every byte; raise UserError where a sha256 is not the one in the manifest."""
        verify_files(self.folder, self.manifest.files)


class ConversationLoader:
    """Rows of packed conversations from weighted sources, in an order set by (seed, step).

    A weight says how many times an epoch shows each row of the source: see RowOrder.
    """

    def __init__(
        self,
        packed: Sequence[PackedConversations],
        weights: Sequence[float],
        length: int,
        rows_per_step: int,
        seed: int,
    ) -> None:
        require(len(packed) > 0, "Fine-tuning needs at least one source of conversations.")
        for source in packed:
            require(
                length == source.length,
                f"{source.folder} holds rows of {source.length} tokens, but {length} are asked "
                "for; delete it to pack the conversations again.",
            )
        require(rows_per_step > 0, f"A step should have at least one row, not {rows_per_step}.")
        self.packed = list(packed)
        self.length = length
        self.rows_per_step = rows_per_step
        self.order = RowOrder([source.manifest.num_rows for source in packed], weights, seed)

    @property
    def steps_per_epoch(self) -> float:
        return self.order.rows_per_pass / self.rows_per_step

    def step(self, index: int) -> Batch:
        return self.rows(index, 0, self.rows_per_step)

    def rows(self, index: int, start: int, stop: int) -> Batch:
        place = self.order.locate(row_slots(index, start, stop, self.rows_per_step))
        inputs = np.empty((stop - start, self.length), dtype=np.int64)
        targets = np.empty_like(inputs)
        numbers = np.empty(inputs.shape, dtype=np.int32)
        for number, packed in enumerate(self.packed):
            chosen = place.source == number
            inputs[chosen] = packed.inputs[place.row[chosen]]
            targets[chosen] = packed.targets[place.row[chosen]]
            numbers[chosen] = packed.documents[place.row[chosen]]
        return Batch.from_numpy(inputs, targets, numbers)


def write_conversations(
    folder: str | Path,
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    length: int,
    progress: Progress | None = None,
) -> PackedManifest:
    """Render, cut and pack the conversations of `documents` into `folder`, atomically.

    A conversation of n tokens takes n - 1 positions, one per prediction; what follows the last
    trained token is left out. One that needs more than `length` is cut: before a user message if
    that can be, else between messages, else inside one; each piece starts with `<|bos|>` again.
    Raises UserError when a document is not a conversation, or when there is nothing to learn.
    """
    require(length > 0, f"The row length should be positive, not {length}.")
    conversations: list[Conversation] = []
    units: list[list[int]] = []
    count = 0
    for count, document in enumerate(documents, 1):
        rendered = _render(tokenizer, document)
        conversation = follow(rendered)
        if len(conversation.targets):
            conversations.append(conversation)
            units.append(_units(rendered, len(conversation.targets), length))
        if progress is not None:
            progress(count)
    if not conversations:
        raise UserError(
            f"None of the {count} conversations for {folder} has a message to learn: a "
            "conversation needs at least one of role 'assistant'."
        )
    rows = pack(units, length)
    with atomic_folder(folder) as temporary:
        _write_rows(temporary, conversations, rows, tokenizer, length)
        manifest = PackedManifest(
            version=VERSION,
            kind=KIND,
            tokenizer=tokenizer.fingerprint,
            bos_id=tokenizer.special["<|bos|>"],
            files=tuple(record_file(path) for path in sorted(temporary.iterdir())),
            length=length,
            num_rows=len(rows),
            num_positions=sum(len(one.targets) for one in conversations),
            num_targets=sum(int((one.targets != IGNORE).sum()) for one in conversations),
            num_conversations=count,
            num_dropped=count - len(conversations),
        )
        write_manifest(temporary, manifest)
    return manifest


class Conversation(NamedTuple):
    """A rendered conversation after its `<|bos|>`: (N,) ids, and the same ids or IGNORE."""

    ids: np.ndarray
    targets: np.ndarray


def follow(rendered: Rendered) -> Conversation:
    """What follows `<|bos|>`, up to the last trained token."""
    size = max((t for t, trained in enumerate(rendered.mask) if trained), default=0)
    ids = np.asarray(rendered.ids[1 : size + 1], dtype=np.int32)
    return Conversation(ids, np.where(rendered.mask[1 : size + 1], ids, np.int32(IGNORE)))


def _units(rendered: Rendered, size: int, length: int) -> list[int]:
    """Lengths of the parts between which a conversation of `size` positions may be cut."""
    exchanges = [start - 1 for start in rendered.exchanges]
    messages = [start - 1 for start in rendered.starts[1:]]
    return cut_units(size, length, exchanges, [*messages, len(rendered.ids) - 1])


def _render(tokenizer: Tokenizer, document: Document) -> Rendered:
    if not document.messages:
        raise UserError(
            f"Document {document.id!r} of {document.source!r} is not a conversation: it has no "
            "messages."
        )
    rendered = render(tokenizer, document.messages)
    bos = tokenizer.special["<|bos|>"]
    if rendered.ids[0] == bos:
        return rendered
    # A format that opens without one still needs it between the conversations of a row.
    later = [[start + 1 for start in starts] for starts in (rendered.starts, rendered.exchanges)]
    return Rendered([bos, *rendered.ids], [False, *rendered.mask], *later)


def _write_rows(
    folder: Path,
    conversations: list[Conversation],
    rows: list[list[Span]],
    tokenizer: Tokenizer,
    length: int,
) -> None:
    shape = len(rows), length
    dtype = token_dtype(tokenizer.vocab_size)
    inputs = np.lib.format.open_memmap(folder / "inputs.npy", "w+", dtype, shape)
    targets = np.lib.format.open_memmap(folder / "targets.npy", "w+", "<i4", shape)
    documents = np.lib.format.open_memmap(folder / "documents.npy", "w+", "<i4", shape)
    inputs[:] = tokenizer.special["<|bos|>"]
    targets[:] = IGNORE
    for row, spans in enumerate(rows):
        at = 0
        for place, (number, start, stop) in enumerate(spans, start=1):
            end = at + stop - start
            documents[row, at:end] = place
            # Each span begins with the <|bos|> that is there already.
            inputs[row, at + 1 : end] = conversations[number].ids[start : stop - 1]
            targets[row, at:end] = conversations[number].targets[start:stop]
            at = end
        documents[row, at:] = np.arange(length - at) + len(spans) + 1
    for array in (inputs, targets, documents):
        array.flush()
