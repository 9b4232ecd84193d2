"""Texts and pictures to classes: one for a text or a picture, or one for each word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.config import UserError, require
from groundup.data.images import normalized
from groundup.data.padding import batches_by_length, pad
from groundup.data.pictures import read_picture
from groundup.data.sources import read_lines
from groundup.infer.generate import device_of, evaluating
from groundup.models.encoder import Encoder
from groundup.models.folder import Loaded
from groundup.text.framing import frame, frame_words, pad_id, room
from groundup.text.tokenizer import Tokenizer

TOKENS_PER_BATCH = 4096


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a model makes of one text or picture."""

    label: str
    """The likeliest class."""
    probabilities: dict[str, float]
    """Of all classes, which they sum to 1 over."""


class Classifier:
    """A loaded model with classes; their names are in its meta, else they are numbered.

    Raises UserError for an encoder that has no head for classes.
    """

    def __init__(self, loaded: Loaded, where: str | Path = "the model") -> None:
        self.model, self.tokenizer, self.where = loaded.model, loaded.tokenizer, where
        self.head = "picture" if loaded.kind != "encoder" else _head(self.model, where)
        config = self.model.config
        count = config.num_classes if self.head == "picture" else config.head.num_classes
        require(count > 0, f"{where} gives vectors of pictures; it has no classes.")
        names = list(map(str, loaded.meta.get("classes") or range(count)))
        require(
            len(names) == count,
            f"{where} has {count} classes, but its groundup.json names {len(names)}.",
        )
        self.names = names

    def texts(self, texts: Sequence[str]) -> list[Verdict]:
        """A verdict on each text; long ones are cut where the model's positions end."""
        self._needs("sequence", "`--image FILE` instead of a text")
        tokenizer = self._tokenizer()
        limit = room(tokenizer, self.model.config.context_length)
        rows = [frame(tokenizer, ids[:limit].tolist()) for ids in tokenizer.encode_batch(texts)]
        return [self._verdict(logits) for logits in self._logits(rows)]

    def words(self, text: str) -> list[tuple[str, str]]:
        """Each word of a text, as spaces separate them, and its class; long texts are cut."""
        self._needs("token", "a text to be classified as a whole")
        words = text.split()
        row, starts = frame_words(self._tokenizer(), words)
        row = row[: self.model.config.context_length]
        best = self._logits([row])[0].argmax(-1).tolist()
        pairs = zip(words, starts, strict=True)
        return [(word, self.names[best[start]]) for word, start in pairs if start < len(row)]

    @torch.inference_mode()
    def picture(self, path: str | Path) -> Verdict:
        """A verdict on a PNG or JPEG file, scaled to the model's size."""
        self._needs("picture", "a text: --text FILE or --prompt TEXT")
        images = picture_tensor(path, self.model.config, device_of(self.model))
        with evaluating(self.model):
            return self._verdict(self.model(images)[0])

    @torch.inference_mode()
    def _logits(self, rows: Sequence[Sequence[int]]) -> list[Tensor]:
        """N rows -> for each (num_classes,), or (T, num_classes) of a token head; fp32, CPU."""
        found: dict[int, Tensor] = {}
        with evaluating(self.model):
            for batch in batches_by_length([len(row) for row in rows], TOKENS_PER_BATCH):
                padded = pad([rows[row] for row in batch], pad_id(self._tokenizer()))
                ids, visible = (torch.from_numpy(a).to(device_of(self.model)) for a in padded)
                found.update(zip(batch, self.model(ids, visible).float().cpu(), strict=True))
        return [found[row] for row in range(len(rows))]

    def _verdict(self, logits: Tensor) -> Verdict:
        probabilities = logits.float().softmax(-1).tolist()
        named = dict(zip(self.names, probabilities, strict=True))
        return Verdict(self.names[int(logits.argmax())], named)

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise UserError(f"{self.where} has no tokenizer, so it cannot read texts.")
        return self.tokenizer

    def _needs(self, head: str, other: str) -> None:
        require(self.head == head, f"{self.where} wants {other}.")


def verdicts(
    classifier: Classifier, text: str = "", prompt: str = "", image: str = ""
) -> Iterator[dict[str, Any]]:
    """One for each line of the file `text`, for the text `prompt` or for the file `image`.

    `{"label", "probabilities"}`, or `{"tags": [[word, tag], …]}` of a head for words.
    """
    require(
        (bool(text), bool(prompt), bool(image)).count(True) == 1,
        "Name what to classify: --text FILE (a text a line), --prompt TEXT or --image FILE.",
    )
    if image:
        yield asdict(classifier.picture(image))
        return
    texts = read_lines(text) if text else [prompt]
    if classifier.head == "token":
        for line in texts:
            yield {"tags": classifier.words(line)}
    else:
        yield from map(asdict, classifier.texts(texts))


def picture_tensor(path: str | Path, config: Any, device: torch.device) -> Tensor:
    """A file -> (1, channels, size, size) as the image model of `config` reads it."""
    pixels = read_picture(path, config.channels, config.image_size)
    return torch.from_numpy(normalized(pixels[None])).to(device)


def _head(model: Encoder, where: str | Path) -> str:
    head = model.config.head
    if head is None:
        raise UserError(f"{where} has no head for classes. `groundup embed` gives its vectors.")
    require(
        head.kind != "masked",
        f"{where} guesses hidden words; it has no head for classes. Fine-tune it with one.",
    )
    return head.kind
