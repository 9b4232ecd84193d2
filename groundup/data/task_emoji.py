"""Emoji and what they are called: little pictures to describe in a few words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from groundup.data.distinct import tidy
from groundup.data.examples import Example, TaskData, is_drawn
from groundup.data.packages import Tarball, read_package
from groundup.data.pictures import decode_picture, require_pillow
from groundup.files import sha256_bytes

SIZE = 64
"""Pixels in a row and in a column."""
EMOJI = Tarball(
    package="emoji-datasource-google",
    version="16.0.0",
    sha256="fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
)
SKINS = {
    "1F3FB": "light",
    "1F3FC": "medium light",
    "1F3FD": "medium",
    "1F3FE": "medium dark",
    "1F3FF": "dark",
}
_PEOPLE = re.compile(r"\b(man|woman|men|women|male|female|boy|girl|person|mr|mrs)\b")


def read_emoji() -> TaskData:
    """A picture -> its name, such as "waving hand, medium dark skin".

    A picture is held out together with all that look like it: the other skins, the man and the
    woman. Each word of its caption is in some caption to train on, or it could not be known.
    """
    require_pillow()  # before anything is fetched
    pictures = {
        PurePosixPath(name).name: data
        for name, data in read_package(EMOJI, lambda name: "/img/google/64/" in name)
    }
    ((_, table),) = read_package(EMOJI, lambda name: name == "package/emoji.json")
    families, seen = dict[str, list[Example]](), set[str]()
    # Some flags are flown in several places: of equal pictures the one with the shortest name.
    for caption, family, picture in sorted(
        captions(json.loads(table)), key=lambda one: len(one[0])
    ):
        if picture in pictures:
            image = decode_picture(pictures[picture], picture, channels=3, size=SIZE)
            digest = sha256_bytes(image.tobytes())
            if digest not in seen:
                seen.add(digest)
                families.setdefault(family, []).append(Example(target=caption, image=image))
    train, heldout = _split(families)
    return TaskData(train, heldout)


def captions(table: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """Caption, family and file name of each emoji in the table of the package.

    Of couples only those of one skin: the 20 mixtures of each would be a tenth of all pictures.
    """
    for emoji in table:
        name = tidy(re.sub(r"[^\w']+", " ", emoji["name"].lower()))
        family = tidy(_PEOPLE.sub("", name)) or "people"
        yield name, family, emoji["image"]
        for skins, variant in (emoji.get("skin_variations") or {}).items():
            tones = {SKINS[skin] for skin in skins.split("-")}
            if len(tones) == 1:
                yield f"{name}, {tones.pop()} skin", family, variant["image"]


def _split(families: dict[str, list[Example]]) -> tuple[list[Example], list[Example]]:
    """Whole families are held out, but those go back that have a word nobody else has."""
    drawn = {family for family in families if is_drawn(family)}
    known = {
        word
        for family, examples in families.items()
        if family not in drawn
        for example in examples
        for word in example.target.replace(",", "").split()
    }
    sides: tuple[list[Example], list[Example]] = [], []
    for family, examples in families.items():
        words = " ".join(example.target for example in examples).replace(",", "").split()
        sides[family in drawn and known.issuperset(words)].extend(examples)
    return sides
