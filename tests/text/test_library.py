"""Tokenizers that the library computes: its ids, a text's own bytes back, and text stays text."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from conftest import TEXT
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from groundup.config import UserError
from groundup.infer.stream import TextStream
from groundup.text.chat import render
from groundup.text.foreign import read_tokenizer
from groundup.text.library import LibraryTokenizer
from groundup.text.tokenizer import load_tokenizer, opening

BYTES = [f"<0x{value:02X}>" for value in range(256)]
SPECIAL = ["<unk>", "<s>", "</s>", "<start>", "<end>"]
KINDS = ("llama", "mistral", "gemma", "t5")
CORPUS = [TEXT, "the stones and the beams of the house, the roof of the house\n\n\n" * 9] * 3
WORDS = [
    *SPECIAL,
    *BYTES[60:70],
    "▁",
    " ",
    "  ",
    "\n\n",
    "house",
    "the",
    "🙂",
    "é",
    "\x00",
    "<",
    ">",
]
TEXTS = st.one_of(
    st.text(max_size=40), st.lists(st.sampled_from(WORDS), max_size=9).map("".join)
)  # fmt: skip
TURNS = """\
{% for m in messages %}\
{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}\
{% elif m.role == 'assistant' %}{{ ' ' + m.content + ' ' + eos_token }}\
{% else %}{{ raise_exception('no') }}{% endif %}{% endfor %}"""


def content(kind: str) -> dict[str, Any]:
    """A tokenizer.json as Llama 2's, Mistral's, Gemma's and T5's are, trained on a few lines."""
    if kind == "t5":
        unigram = tokenizers.Tokenizer(models.Unigram())
        unigram.normalizer = normalizers.NFKC()
        unigram.pre_tokenizer = pre_tokenizers.Metaspace()
        unigram.decoder = decoders.Metaspace()
        named = trainers.UnigramTrainer(
            vocab_size=150, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
        )
        unigram.train_from_iterator(CORPUS, named)
        return json.loads(unigram.to_str())
    bpe = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    steps: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if kind == "llama":
        bpe.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        steps.append(decoders.Strip(" ", 1, 0))
    elif kind == "mistral":
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        steps.append(decoders.Strip(" ", 1, 0))
    else:
        bpe.normalizer = normalizers.Replace(" ", "▁")
        bpe.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    bpe.decoder = decoders.Sequence(steps)
    named = trainers.BpeTrainer(
        vocab_size=450, special_tokens=[*SPECIAL, *BYTES], show_progress=False
    )
    bpe.train_from_iterator([line for text in CORPUS for line in text.splitlines()], named)
    if kind == "gemma":
        bpe.add_tokens([tokenizers.AddedToken("\n\n", normalized=False)])
    data = json.loads(bpe.to_str())
    data["added_tokens"] = [one for one in data["added_tokens"] if one["content"] not in BYTES]
    return data


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As others publish it, with Llama 2's way of writing chats."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "tokenizer.json").write_text(json.dumps(content(request.param), indent=3))
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": TURNS}
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "legacy": True}))
    return folder


@pytest.fixture(scope="module")
def pair(folder: Path) -> tuple[LibraryTokenizer, tokenizers.Tokenizer]:
    """Ours and the library's own."""
    ours = load_tokenizer(folder)
    assert isinstance(ours, LibraryTokenizer)
    return ours, tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


@given(text=TEXTS)
@settings(deadline=None, max_examples=150, derandomize=True)
def test_ids_are_the_librarys_and_text_stays_text(pair: Any, text: str) -> None:
    ours, theirs = pair
    ids = ours.encode(text)
    unknown, metaspace = ours.special["<unk>"], ours.data["pre_tokenizer"] is not None
    assert not {*ours.special.values()} - {unknown} & {*ids}
    if not any(name in text for name in SPECIAL):
        assert ids == theirs.encode(text, add_special_tokens=False).ids
    if ours.kind == "sentencepiece":
        assert unknown not in ids
        spaced = text.replace("▁", " ")
        # Metaspace puts no second space before a text that begins with one: it looks like none.
        assert ours.decode(ids) in (spaced, spaced.removeprefix(" ") if metaspace else spaced)
        decoded = ours.decode_bytes(ids)
        assert int(ours.token_bytes()[ids].sum()) == len(decoded)
    elif text.strip() == text and unknown not in ids:
        assert ours.decode(ids) == theirs.decode(ids)
    assert np.array_equal(ours.encode_batch([text, ""])[0], ids)


@given(texts=st.lists(TEXTS, max_size=4), names=st.lists(st.sampled_from(SPECIAL[1:]), min_size=5))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_parts_are_encoded_as_one_text(pair: Any, texts: list[str], names: list[str]) -> None:
    ours, theirs = pair
    texts = [text for text in texts if not any(name in text for name in SPECIAL)]
    parts: list[int | str] = []
    for text, name in zip(texts, names, strict=False):
        parts += [ours.special[name], text]
    whole = "".join(SPECIAL[part] if isinstance(part, int) else part for part in parts)
    found = ours.encode_parts(parts)
    assert [id for ids in found for id in ids] == theirs.encode(whole, add_special_tokens=False).ids
    for part, ids in zip(parts, found, strict=True):
        assert ids == [part] if isinstance(part, int) else not {1, 2, 3, 4} & {*ids}


def test_a_conversation_has_the_ids_of_the_template(folder: Path, pair: Any) -> None:
    tokenizer, notes = read_tokenizer(folder)
    assert notes == [] and tokenizer.special["<|bos|>"] == tokenizer.special["<s>"]
    assert tokenizer.special["<|end|>"] == 2
    turns: list[Any] = [
        {"role": "user", "content": "the house?"},
        {"role": "assistant", "content": "roof and stones."},
        {"role": "user", "content": "  <s> we </s>"},
    ]
    rendered = render(tokenizer, turns[:2])
    text = "<s>[INST] the house? [/INST] roof and stones. </s>"
    assert rendered.ids == pair[1].encode(text, add_special_tokens=False).ids
    learned = [id for id, on in zip(rendered.ids, rendered.mask, strict=True) if on]
    assert learned[-1] == 2 and tokenizer.decode(learned).strip() == "roof and stones."
    asked = render(tokenizer, turns, reply=True)
    assert asked.ids.count(1) == 2 and asked.ids.count(2) == 1
    assert asked.ids[asked.starts[2]] == 1 and asked.exchanges == [asked.starts[0], asked.starts[2]]


def test_a_folder_goes_there_and_back_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    tokenizer, _ = read_tokenizer(folder)
    tokenizer.save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["legacy"] is True and config["chat_template"] == TURNS
    again, _ = read_tokenizer(tmp_path)
    assert again.fingerprint == tokenizer.fingerprint and again.special == tokenizer.special
    for other in (again, pickle.loads(pickle.dumps(tokenizer))):
        turn: list[Any] = [{"role": "user", "content": "the house"}]
        assert render(other, turn).ids == render(tokenizer, turn).ids
        assert opening(other) == [1]


def test_a_reply_streams_whole_characters(pair: Any) -> None:
    ours, _ = pair
    text = "the house 🙂🙂 é" if ours.kind == "sentencepiece" else "the house"
    stream = TextStream(ours)
    shown = "".join(stream.push(id) for id in ours.encode(text)) + stream.finish()
    assert shown.removeprefix(" ") == text
    assert ours.decode([1, *ours.encode("we do")], special=True).startswith("<s>")
    with pytest.raises(UserError, match="outside this tokenizer's"):
        ours.decode([ours.vocab_size])


def _set(*path: str, value: Any) -> Any:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("llama", _set("model", "merges", value=[["the", "zzz"]]), "not a valid tokenizer"),
        ("llama", _set("model", "vocab", value=[]), "not a valid tokenizer"),
        ("llama", _set("decoder", value=None), "decodes by nothing"),
        ("llama", _set("decoder", value={"type": "CTC"}), "not a valid|decodes by CTC"),
        ("t5", _set("model", "unk_id", value=10**6), "not a valid tokenizer"),
        ("t5", _set("model", "vocab", value=3), "not a valid tokenizer"),
        ("t5", _set("added_tokens", value=[{"content": "x"}]), "not a valid tokenizer"),
        ("t5", lambda d: d["added_tokens"][1].update(id=7), "the id 7, but it is 1"),
    ],
)
def test_broken_files_are_refused(kind: str, change: Any, message: str, tmp_path: Path) -> None:
    data = content(kind)
    change(data)
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=message):
        load_tokenizer(tmp_path)
