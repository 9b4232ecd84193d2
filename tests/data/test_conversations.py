"""Packed conversations: only marked tokens are learned, each once, and none sees another chat."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundup.config import UserError
from groundup.data.batch import IGNORE
from groundup.data.conversations import (
    ConversationLoader,
    PackedConversations,
    follow,
    write_conversations,
)
from groundup.data.documents import Document
from groundup.text.chat import Rendered, render
from groundup.text.chat_format import ChatFormat, Turn
from groundup.text.tokenizer import BPETokenizer

if TYPE_CHECKING:
    from groundup.text.tokenizer import Tokenizer

property_test = settings(
    deadline=None,
    max_examples=50,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

Turns = list[tuple[str, str]]
turns = st.lists(
    st.tuples(
        st.sampled_from(["system", "user", "assistant", "tool_call", "tool_output"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=25),
    ),
    min_size=1,
    max_size=6,
)


def conversation(said: Turns, name: str = "1") -> Document:
    messages: Any = tuple({"role": role, "content": content} for role, content in said)
    return Document("test", name, messages=messages)


def write(
    folder: Path, chats: list[Turns], tokenizer: Tokenizer, length: int
) -> PackedConversations:
    documents = [conversation(said, str(index)) for index, said in enumerate(chats)]
    write_conversations(folder, documents, tokenizer, length)
    return PackedConversations(folder, tokenizer.fingerprint)


@property_test
@given(said=turns)
def test_following_a_conversation_keeps_what_is_trained(
    tiny_tokenizer: Tokenizer, said: Turns
) -> None:
    rendered = render(tiny_tokenizer, conversation(said).messages)
    ids, targets = follow(rendered)
    marked = list(zip(rendered.ids, rendered.mask, strict=True))[1 : len(ids) + 1]
    assert ids.tolist() == [id for id, _ in marked]
    assert targets.tolist() == [id if mask else IGNORE for id, mask in marked]
    assert not any(rendered.mask[len(ids) + 1 :])
    assert len(ids) == 0 or targets[-1] != IGNORE


@property_test
@given(chats=st.lists(turns, min_size=1, max_size=8), length=st.integers(1, 60))
def test_rows_hold_every_target_once_after_what_came_before_it(
    tmp_path: Path, tiny_tokenizer: Tokenizer, chats: list[Turns], length: int
) -> None:
    rendered = [render(tiny_tokenizer, conversation(said).messages) for said in chats]
    expected = Counter(
        id for one in rendered for id, mask in zip(one.ids, one.mask, strict=True) if mask
    )
    if not expected:
        with pytest.raises(UserError, match="has a message to learn"):
            write(tmp_path / "c", chats, tiny_tokenizer, length)
        return
    packed = write(tmp_path / "c", chats, tiny_tokenizer, length)
    manifest = packed.manifest
    assert Counter(packed.targets[packed.targets != IGNORE].tolist()) == expected
    assert manifest.num_targets == sum(expected.values())
    assert manifest.num_conversations == len(chats)
    assert manifest.num_dropped == sum(not any(one.mask) for one in rendered)
    assert packed.inputs.shape == packed.targets.shape == (manifest.num_rows, length)

    # Read the rows as a model does, by document number; each piece is part of some conversation.
    filled = 0
    for inputs, targets in pieces(packed):
        assert inputs[0] == packed.bos_id
        if (inputs, targets) == ([packed.bos_id], [IGNORE]) and length > 1:
            continue  # padding
        filled += len(inputs)
        assert any(is_part(one, inputs[1:], targets) for one in rendered)
    if length > 1:
        assert filled <= manifest.num_positions


def pieces(packed: PackedConversations) -> Iterator[tuple[list[int], list[int]]]:
    """Inputs and targets of each document number of each row."""
    loader = ConversationLoader([packed], [1.0], packed.length, 1, seed=0)
    for batch in map(loader.step, range(packed.manifest.num_rows)):
        assert batch.documents is not None
        for inputs, targets, numbers in zip(
            batch.inputs, batch.targets, batch.documents, strict=True
        ):
            assert torch.equal(numbers, numbers.sort().values)
            for number in numbers.unique():
                mine = numbers == number
                yield inputs[mine].tolist(), targets[mine].tolist()


def is_part(rendered: Rendered, inputs: list[int], targets: list[int]) -> bool:
    """Whether a piece says, and learns, what stands somewhere in the conversation."""
    size = len(targets)
    for start in range(1, len(rendered.ids) - size + 1):
        span = slice(start, start + size)
        marked = zip(rendered.ids[span], rendered.mask[span], strict=True)
        learned = [id if mask else IGNORE for id, mask in marked]
        if rendered.ids[start : start + size - 1] == inputs and learned == targets:
            return True
    return False


def test_a_long_conversation_is_cut_before_a_question(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    said = [("system", "be kind"), ("user", "one?"), ("assistant", "1")]
    said += [("user", "two?"), ("assistant", "2 " * 9), ("user", "three?"), ("assistant", "3")]
    ids = render(tiny_tokenizer, conversation(said).messages).ids
    questions = [i for i, id in enumerate(ids) if id == tiny_tokenizer.special["<|user|>"]]
    # One short conversation fills the room that is left, so nothing else needs cutting.
    room = len(ids) - questions[2] - 1
    filler = [("user", ""), ("assistant", "x" * 40)]
    while (size := len(render(tiny_tokenizer, conversation(filler).messages).ids) - 1) > room - 2:
        filler[1] = ("assistant", filler[1][1][:-1])
    packed = write(tmp_path / "c", [said, filler], tiny_tokenizer, questions[2] - 1 + size)
    found = [inputs for inputs, _ in pieces(packed) if len(inputs) > 1]
    assert ids[: questions[2] - 1] in found
    assert [ids[0], *ids[questions[2] : -1]] in found


def test_under_one_percent_of_the_positions_is_padding(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    generator = random.Random(3)
    chats = []
    for _ in range(400):
        said = []
        for turn in range(2 * int(generator.lognormvariate(1, 1)) + 2):
            words = " ".join(["we talk"] * (1 + int(generator.lognormvariate(1, 0.8))))
            said.append(("assistant" if turn % 2 else "user", words))
        chats.append(said)
    manifest = write(tmp_path / "c", chats, tiny_tokenizer, 191).manifest
    assert manifest.num_positions / (manifest.num_rows * manifest.length) > 0.99


def test_rows_come_once_an_epoch_whoever_asks(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    chats: list[Turns] = [
        [("user", "count to " + "x" * n), ("assistant", " ".join(map(str, range(n))))]
        for n in range(1, 40)
    ]
    packed = write(tmp_path / "c", chats, tiny_tokenizer, 61)
    rows = packed.manifest.num_rows
    assert rows > 12
    loader = ConversationLoader([packed], [1.0], 61, 6, seed=5)
    assert loader.steps_per_epoch == rows / 6

    # Three epochs of the stream, cut into steps of one row to count them.
    single = ConversationLoader([packed], [1.0], 61, 1, seed=5)
    stream = [single.step(index) for index in range(3 * rows)]
    everything = sorted(packed.inputs.tolist())
    epochs = [
        [batch.inputs[0].tolist() for batch in stream[epoch * rows : (epoch + 1) * rows]]
        for epoch in range(3)
    ]
    assert all(sorted(epoch) == everything for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]

    for index in (7, 0, 3):
        whole = loader.step(index)
        assert torch.equal(
            whole.targets, torch.cat([b.targets for b in stream[index * 6 : index * 6 + 6]])
        )
        for ranks in (1, 2, 3):
            share = 6 // ranks
            parts = [loader.rows(index, r * share, (r + 1) * share) for r in range(ranks)]
            assert torch.equal(torch.cat([part.inputs for part in parts]), whole.inputs)
            numbers = [part.documents for part in parts if part.documents is not None]
            assert whole.documents is not None
            assert torch.equal(torch.cat(numbers), whole.documents)
    other = ConversationLoader([packed], [1.0], 61, 6, seed=6)
    assert not torch.equal(other.step(0).inputs, loader.step(0).inputs)


def test_sources_are_mixed_by_weight(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    def source(name: str, count: int) -> PackedConversations:
        chats: list[Turns] = [
            [("user", name), ("assistant", f"{name} says {n} " + "y" * 20)] for n in range(count)
        ]
        return write(tmp_path / name, chats, tiny_tokenizer, 61)

    sources = [source("cat", 30), source("dog", 50)]
    sizes = [one.manifest.num_rows for one in sources]
    loader = ConversationLoader(sources, [3.0, 0.5], 61, 1, seed=2)
    quota = [3 * sizes[0], round(0.5 * sizes[1])]
    assert loader.steps_per_epoch == sum(quota)
    epoch = [loader.step(index).inputs[0].tolist() for index in range(sum(quota))]
    found = [sum(row in one.inputs.tolist() for row in epoch) for one in sources]
    assert found == quota
    with pytest.raises(UserError, match="at least one source"):
        ConversationLoader([], [], 61, 1, seed=2)


def test_conversations_without_a_reply_are_dropped_and_counted(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    chats: list[Turns] = [
        [("user", "anyone?")],
        [("user", "hello"), ("assistant", "hello!")],
        [("system", "quiet"), ("user", "why?")],
        [("user", "a very long story " * 9), ("assistant", "I see")],
    ]
    packed = write(tmp_path / "c", chats, tiny_tokenizer, 40)
    assert packed.manifest.num_conversations == 4
    assert packed.manifest.num_dropped == 2


def test_what_does_not_fit_is_refused(tmp_path: Path, tiny_tokenizer: Tokenizer) -> None:
    packed = write(tmp_path / "c", [[("user", "a"), ("assistant", "b")]], tiny_tokenizer, 16)
    with pytest.raises(UserError, match="rows of 16 tokens, but 17 are asked for"):
        ConversationLoader([packed], [1.0], 17, 2, seed=0)
    with pytest.raises(UserError, match="at least one row"):
        ConversationLoader([packed], [1.0], 16, 0, seed=0)
    with pytest.raises(UserError, match="f" * 64):
        PackedConversations(tmp_path / "c", "f" * 64)
    with pytest.raises(UserError, match=r"'play' of 'test' is not a conversation"):
        write_conversations(tmp_path / "d", [Document("test", "play", "text")], tiny_tokenizer, 16)
    path = tmp_path / "c" / "targets.npy"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="it was cut off"):
        PackedConversations(tmp_path / "c", tiny_tokenizer.fingerprint)


def test_a_conversation_stays_one_where_every_exchange_begins_with_bos(
    tmp_path: Path, tiny_tokenizer: Tokenizer
) -> None:
    """As in Llama 2's format. Padding and the next conversation are others, as with ours."""
    assert isinstance(tiny_tokenizer, BPETokenizer)
    bos, end = tiny_tokenizer.special["<|bos|>"], tiny_tokenizer.special["<|end|>"]
    user = Turn(role="user", before="<|bos|>[", after="]")
    answer = Turn(role="assistant", before=" ", after="<|end|>")
    chat = ChatFormat(opening="", turns=(user, answer), reply="", end="<|end|>")
    vocabulary = dataclasses.replace(tiny_tokenizer.vocabulary, chat=chat)
    said = [("user", "who?"), ("assistant", "we do!"), ("user", "why?"), ("assistant", "the roof.")]
    document = conversation(said)
    for tokenizer, begins in ((BPETokenizer(vocabulary), 2), (tiny_tokenizer, 1)):
        write_conversations(tmp_path, [document, document], tokenizer, 90)
        packed = PackedConversations(tmp_path, tokenizer.fingerprint)
        loader = ConversationLoader([packed], [1.0], 90, 1, seed=0)
        batch = loader.step(0)
        assert batch.documents is not None
        inputs, numbers = batch.inputs[0].tolist(), batch.documents[0].tolist()
        for number in (1, 2):
            ids = [id for id, own in zip(inputs, numbers, strict=True) if own == number]
            assert ids.count(bos) == begins and ids.count(end) == 1 + (begins == 1) * 2
        assert len(set(numbers[numbers.index(3) :])) == len(numbers) - numbers.index(3)
        if begins == 1:
            assert numbers == np.cumsum(np.array(inputs) == bos).tolist()
