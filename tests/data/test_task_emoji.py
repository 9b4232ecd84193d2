"""Emoji: captions, pictures on white, and a held-out side of unseen pictures in known words."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import numpy as np
import pytest

from groundup.config import UserError
from groundup.data import task_emoji
from groundup.data.pictures import decode_picture
from groundup.data.task_emoji import captions, read_emoji

Image = pytest.importorskip("PIL.Image")


def png(colour: tuple[int, ...], mode: str = "RGBA") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (64, 64), colour).save(buffer, "PNG")
    return buffer.getvalue()


def emoji(name: str, image: str, *skins: str) -> dict[str, Any]:
    variations = {skin: {"image": f"{image}-{skin}.png"} for skin in skins}
    return {"name": name, "image": f"{image}.png", "skin_variations": variations or None}


def test_captions() -> None:
    table = [
        emoji("WAVING HAND SIGN", "1f44b", "1F3FB", "1F3FE"),
        emoji("MAN COOK", "1f468"),
        emoji("Woman Cook", "1f469"),
        emoji("KISS: WOMAN, MAN", "1f48f", "1F3FF-1F3FF", "1F3FB-1F3FF"),
        emoji("EIGHT O’CLOCK", "1f557"),
    ]
    assert list(captions(table)) == [
        ("waving hand sign", "waving hand sign", "1f44b.png"),
        ("waving hand sign, light skin", "waving hand sign", "1f44b-1F3FB.png"),
        ("waving hand sign, medium dark skin", "waving hand sign", "1f44b-1F3FE.png"),
        ("man cook", "cook", "1f468.png"),
        ("woman cook", "cook", "1f469.png"),
        ("kiss woman man", "kiss", "1f48f.png"),
        ("kiss woman man, dark skin", "kiss", "1f48f-1F3FF-1F3FF.png"),
        ("eight o clock", "eight o clock", "1f557.png"),
    ]


def test_pictures_stand_on_white() -> None:
    half = decode_picture(png((0, 0, 0, 51)), "x.png", channels=3, size=64)
    assert half.shape == (3, 64, 64) and half.dtype == np.uint8
    assert set(half.flatten().tolist()) == {204}
    red = decode_picture(png((200, 10, 20), "RGB"), "x.png", 3, 64)
    assert red[:, 5, 7].tolist() == [200, 10, 20]
    grey = decode_picture(png((7,), "L"), "x.png", 3, 64)
    assert grey[:, 0, 63].tolist() == [7, 7, 7]


@pytest.mark.parametrize("data", [b"", b"GIF89a", png((1, 2, 3, 4))[:-30]])
def test_no_picture(data: bytes) -> None:
    with pytest.raises(UserError, match=r"^x\.png"):
        decode_picture(data, "x.png", 3, 64)


def test_emoji(store) -> None:
    table, files = [], {}
    colours = ("red", "green", "blue", "yellow", "black", "pink", "grey", "brown")
    things = ("heart", "circle", "square", "book", "apple", "flag", "car", "hat", "man", "woman")
    for i, colour in enumerate(colours):
        for j, thing in enumerate(things):
            image = f"{i}-{j}"
            table.append(emoji(f"{colour} {thing}".upper(), image, "1F3FB", "1F3FF"))
            for k, skin in enumerate(("", "-1F3FB", "-1F3FF")):
                path = f"package/img/google/64/{image}{skin}.png"
                files[path] = png((16 * i, 16 * j, 16 * k, 255))
    table += [emoji("UNHEARD OF", "9-9"), emoji("NOT THERE", "8-8")]
    table += [emoji("RED HEART AGAIN", "9-8")]  # the same picture
    files["package/img/google/64/9-9.png"] = png((255, 0, 0, 255))
    files["package/img/google/64/9-8.png"] = files["package/img/google/64/0-0.png"]
    files["package/emoji.json"] = json.dumps(table).encode()
    files["package/img/google/sheets/all.png"] = b"no picture"
    store(task_emoji, "EMOJI", files)

    data = read_emoji()
    seen = {one.target for one in data.train}
    unseen = {one.target for one in data.heldout}
    assert len(data.train) + len(data.heldout) == len(seen) + len(unseen) == 8 * 10 * 3 + 1
    assert "unheard of" in seen, "its words are in no other caption"
    assert "red heart again" not in seen | unseen
    known = {word for caption in seen for word in caption.replace(",", "").split()}
    assert unseen and known.issuperset(" ".join(unseen).replace(",", "").split())
    family = {caption.partition(",")[0].replace("woman", "man") for caption in unseen}
    assert family.isdisjoint(caption.partition(",")[0].replace("woman", "man") for caption in seen)
    pink = next(one for one in [*data.train, *data.heldout] if one.target == "pink hat, dark skin")
    assert pink.image is not None and pink.image[:, 1, 2].tolist() == [80, 112, 32]


def test_without_pillow_nothing_is_fetched(cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UserError, match=r"pip install 'groundup\[images\]'"):
        read_emoji()
    assert not cache.exists()
