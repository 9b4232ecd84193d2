"""Classes of texts, words and pictures: what the model computes, named, alone or in a batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groundup.cli import main
from groundup.config import UserError
from groundup.data.pictures import read_picture
from groundup.infer.classify import Classifier
from groundup.models.encoder_config import HeadConfig, modernbert
from groundup.models.folder import load_any, save_any
from groundup.models.image_config import MLPConfig, vit
from groundup.models.kinds import build
from groundup.text.framing import frame

TEXTS = ["the house grows", "", "who builds it? " * 30, "fire"]
NAMES = ["ham", "spam", "naïve"]
SHAPE: dict[str, Any] = {"width": 24, "num_layers": 2, "num_heads": 2, "context_length": 40}


def saved(folder: Path, config: Any, tokenizer: Any, meta: dict[str, Any]) -> Path:
    model = build(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    save_any(folder / "m", model, tokenizer, meta)
    return folder / "m"


def encoder(kind: Any, tokenizer: Any, classes: int = 3) -> Any:
    head = HeadConfig(kind=kind, num_classes=classes) if kind else None
    return modernbert(vocab_size=tokenizer.vocab_size, **SHAPE, head=head)


def printed(capsys: Any, *words: object) -> list[Any]:
    main(list(map(str, words)))
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@torch.no_grad()
def test_texts_get_the_classes_the_model_gives_them(tmp_path, tiny_tokenizer, capsys) -> None:
    folder = saved(
        tmp_path, encoder("sequence", tiny_tokenizer), tiny_tokenizer, {"classes": NAMES}
    )
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    found = printed(capsys, "classify", folder, "--text", tmp_path / "texts.txt")
    model = load_any(folder).model
    for text, verdict in zip(TEXTS, found, strict=True):
        ids = frame(tiny_tokenizer, tiny_tokenizer.encode(text)[:38])
        expected = model(torch.tensor([ids]))[0].softmax(-1)
        assert list(verdict["probabilities"]) == NAMES
        got = torch.tensor(list(verdict["probabilities"].values()))
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)
        assert verdict["label"] == NAMES[int(expected.argmax())]
    odd = ["one\fline", "another\u2028line", "", "the\x85last"]
    (tmp_path / "odd.txt").write_bytes("\r\n".join(odd).encode())
    found_odd = printed(capsys, "classify", folder, "--text", tmp_path / "odd.txt")
    ids = frame(tiny_tokenizer, tiny_tokenizer.encode(odd[1]))
    probabilities = model(torch.tensor([ids]))[0].softmax(-1).tolist()
    assert len(found_odd) == len(odd)
    assert list(found_odd[1]["probabilities"].values()) == pytest.approx(probabilities, abs=1e-5)
    alone = printed(capsys, "classify", folder, "--prompt", TEXTS[0])[0]
    assert alone["probabilities"] == pytest.approx(found[0]["probabilities"], abs=1e-5)


def test_every_word_gets_a_tag_while_there_is_room(tmp_path, tiny_tokenizer, capsys) -> None:
    folder = saved(tmp_path, encoder("token", tiny_tokenizer), tiny_tokenizer, {})
    (answer,) = printed(capsys, "classify", folder, "--prompt", "Who builds it? We do!")
    assert [word for word, _ in answer["tags"]] == ["Who", "builds", "it?", "We", "do!"]
    assert {tag for _, tag in answer["tags"]} <= {"0", "1", "2"}
    (cut,) = printed(capsys, "classify", folder, "--prompt", "stone " * 99)
    assert 5 < len(cut["tags"]) < 99


@torch.no_grad()
def test_a_word_has_the_tag_of_its_first_token(tmp_path, tiny_tokenizer) -> None:
    folder = saved(tmp_path, encoder("token", tiny_tokenizer, 9), tiny_tokenizer, {})
    loaded = load_any(folder)
    words = ["From", "naïve", "stones", "we", "build"]
    pieces = [tiny_tokenizer.encode(" " * (i > 0) + word) for i, word in enumerate(words)]
    row = frame(tiny_tokenizer, [id for piece in pieces for id in piece])
    best = loaded.model(torch.tensor([row]))[0].argmax(-1).tolist()
    places = [1 + sum(map(len, pieces[:i])) for i in range(len(words))]
    expected = [(word, str(best[place])) for word, place in zip(words, places, strict=True)]
    assert Classifier(loaded).words("From naïve  stones\nwe build") == expected


def picture(path: Path, mode: str, size: tuple[int, int]) -> Path:
    image = pytest.importorskip("PIL.Image")
    shape = (*size[::-1], len(mode)) if len(mode) > 1 else size[::-1]
    values = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    image.fromarray(values).save(path)
    return path


def test_pictures_become_pixels(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    colour = picture(tmp_path / "colour.png", "RGB", (7, 7))
    expected = np.asarray(image.open(colour)).transpose(2, 0, 1)
    assert np.array_equal(read_picture(colour, 3, 7), expected)
    assert read_picture(colour, 1, 5).shape == (1, 5, 5)
    image.new("RGBA", (4, 6), (9, 9, 9, 0)).save(tmp_path / "clear.png")
    assert (read_picture(tmp_path / "clear.png", 3, 8) == 255).all()
    assert (read_picture(tmp_path / "clear.png", 1, 8) == 0).all()


@pytest.mark.parametrize("kind", ["mlp", "vit"])
@torch.no_grad()
def test_pictures_get_the_classes_the_model_gives_them(kind, tmp_path, capsys) -> None:
    size: dict[str, Any] = {"image_size": 6, "channels": 3, "num_classes": 3}
    config = MLPConfig(**size) if kind == "mlp" else vit(**size, patch_size=2, width=8)
    folder = saved(tmp_path, config, None, {"classes": NAMES})
    path = picture(tmp_path / "p.png", "RGB", (6, 6))
    (verdict,) = printed(capsys, "classify", folder, "--image", path)
    pixels = torch.from_numpy(read_picture(path, 3, 6)[None]) / 127.5 - 1
    expected = load_any(folder).model(pixels)[0].softmax(-1)
    got = torch.tensor(list(verdict["probabilities"].values()))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_mistakes_are_named(tmp_path, tiny_tokenizer, refused) -> None:
    texts = saved(tmp_path / "a", encoder("sequence", tiny_tokenizer), tiny_tokenizer, {})
    images = saved(tmp_path / "b", MLPConfig(image_size=6, num_classes=3), None, {})
    bare = saved(tmp_path / "c", encoder(None, tiny_tokenizer), tiny_tokenizer, {})
    masked = saved(tmp_path / "d", encoder("masked", tiny_tokenizer, 0), tiny_tokenizer, {})
    assert "--text FILE" in refused("classify", texts)
    assert "--text FILE" in refused("classify", texts, "--prompt", "a", "--image", "b")
    assert "wants a text: --text" in refused("classify", texts, "--image", "a.png")
    assert "wants `--image FILE`" in refused("classify", images, "--prompt", "fire")
    assert "no picture" in refused("classify", images, "--image", tmp_path / "none.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    words = "bad.png is not a whole PNG or JPEG file, the formats that are read here."
    assert words in refused("classify", images, "--image", tmp_path / "bad.png")
    assert "`groundup score` does not apply to" in refused("score", images, "--text", "a")
    assert "`groundup embed`" in refused("classify", bare, "--prompt", "fire")
    assert "hidden words" in refused("classify", masked, "--prompt", "fire")
    assert "`groundup classify`" in refused("embed", images, "--text", texts / "config.json")
    assert "`groundup embed`" in refused("generate", bare, "--prompt", "a")
    other = load_any(texts)._replace(meta={"classes": ["one"]})
    with pytest.raises(UserError, match="3 classes, but its groundup.json names 1"):
        Classifier(other, "m")
