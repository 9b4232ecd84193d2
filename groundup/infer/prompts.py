"""How each kind of model is asked to write: what it reads first, and where its reply ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from groundup.config import UserError, require
from groundup.infer.beam import beam_search
from groundup.infer.classify import picture_tensor
from groundup.infer.config import SamplingConfig
from groundup.infer.generate import (
    CachedModel,
    Reader,
    complete_many,
    default_stop_ids,
    device_of,
    generate,
)
from groundup.models.folder import Loaded
from groundup.models.vision_language_config import num_image_tokens
from groundup.text.chat import Message, render
from groundup.text.framing import frame, room
from groundup.text.tokenizer import Tokenizer, opening

MOST_BEAMS = 256
"""Each beam keeps a cache of its own, and more find hardly anything better."""


@dataclass(frozen=True)
class Request:
    """A model that writes like a decoder, and what it writes after."""

    model: CachedModel
    tokenizer: Tokenizer
    ids: list[int]
    echo: str = ""
    """What a person should see before the reply: the text that it continues."""
    answers: bool = False
    """Whether the reply ends where an answer does, and never slides past the context."""

    def stream(self, sampling: SamplingConfig) -> Iterator[str]:
        """One reply, piece by piece."""
        settings = self._settings(sampling)
        for piece in generate(self.model, self.tokenizer, self.ids, sampling, **settings):
            yield piece.text

    def several(self, sampling: SamplingConfig, samples: int) -> list[str]:
        """So many replies, each with its own noise."""
        settings = self._settings(sampling)
        replies = complete_many(self.model, self.tokenizer, self.ids, sampling, samples, **settings)
        return [reply.text for reply in replies]

    def search(self, beams: int, max_tokens: int) -> str:
        """The likeliest reply a beam search finds, its length weighed with alpha 0.6."""
        free = self.model.config.context_length - len(self.ids) + 1
        require(free >= 1, f"The prompt's {len(self.ids)} tokens leave no room for a reply.")
        stop_ids = default_stop_ids(self.tokenizer)
        best, *_ = beam_search(
            self.model,
            self.ids,
            beams=beams,
            max_tokens=min(max_tokens, free),
            stop_ids=stop_ids,
            alpha=0.6,
            vocab_size=self.tokenizer.vocab_size,
        )
        return self.tokenizer.decode([id for id in best.ids if id not in stop_ids])

    def _settings(self, sampling: SamplingConfig) -> dict[str, Any]:
        if not self.answers:
            return {}
        room = min(self.model.config.context_length, len(self.ids) + sampling.max_tokens)
        # Read in one piece: the places of an image have to come together.
        reader = Reader(self.model, room, chunk=max(512, len(self.ids)))
        return {"overflow": "stop", "reader": reader}


def write(
    asked: Request, sampling: SamplingConfig, samples: int = 1, beams: int = 1
) -> Iterator[str]:
    """What to print, piece by piece: the text that is continued, and one reply or several.

    With several `beams` it is the reply they find, whatever the sampling.
    """
    require(
        1 <= beams <= MOST_BEAMS,
        f"--beams should be from 1 to {MOST_BEAMS}, but is {beams:,}.",
    )
    require(
        beams == 1 or samples == 1,
        "--beams finds one reply, the likeliest; leave --samples out, or sample with --beams 1.",
    )
    if samples != 1:
        yield "\n\n".join(asked.echo + reply for reply in asked.several(sampling, samples))
        return
    yield asked.echo
    yield from (
        asked.stream(sampling) if beams == 1 else [asked.search(beams, sampling.max_tokens)]
    )


def request(loaded: Loaded, prompt: str, image: str = "") -> Request:
    """What to ask of a model of any kind that writes.

    Decoders and recurrent models continue the prompt; but one that learnt a task of answering is
    asked, as in a chat. Encoder-decoders answer the prompt, vision-language models write about a
    picture, the file `image`, and may be asked something about it.
    """
    model, tokenizer = loaded.model, loaded.tokenizer
    if tokenizer is None:
        raise UserError("The model has no tokenizer, so it can neither read nor write text.")
    require(
        bool(image) == (loaded.kind == "vision_language"),
        "Name the picture to write about: --image FILE."
        if not image
        else "--image is for vision-language models; this one reads text alone.",
    )
    if loaded.kind == "vision_language":
        return _about(loaded, tokenizer, prompt, image)
    ids = tokenizer.encode(prompt)
    if loaded.kind == "encoder_decoder":
        source = frame(tokenizer, ids[: room(tokenizer, model.config.context_length)])
        given = model.given(torch.tensor([source], device=device_of(model)))
        return Request(given, tokenizer, [model.config.start_id], answers=True)
    if loaded.meta.get("kind_of_task", "continue") != "continue":
        turns = [Message(role="user", content=prompt)]
        return Request(model, tokenizer, render(tokenizer, turns, reply=True).ids, answers=True)
    return Request(model, tokenizer, [*opening(tokenizer), *ids], echo=prompt)


def _about(loaded: Loaded, tokenizer: Tokenizer, prompt: str, image: str | Path) -> Request:
    config = loaded.model.config
    size = config.vision.image_size
    pixels = picture_tensor(image, config.vision, device_of(loaded.model))
    turns = [Message(role="user", content=prompt)]
    begin, *rest = render(tokenizer, turns, reply=True).ids
    user, *rest = rest
    places = [config.image_id] * num_image_tokens(config, size, size)
    return Request(
        loaded.model.given(pixels), tokenizer, [begin, user, *places, *rest], answers=True
    )
