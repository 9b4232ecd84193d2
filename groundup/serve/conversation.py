"""A conversation with a model: the messages, what of them fits its context, and its replies."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

from groundup.config import UserError, from_dict, to_dict
from groundup.infer.config import SamplingConfig
from groundup.infer.generate import Piece, Reader, generate
from groundup.text.chat import Message, chat_of, render

if TYPE_CHECKING:
    from groundup.models.decoder import Decoder
    from groundup.text.tokenizer import Tokenizer


class Conversation:
    """Messages so far and the settings of the next reply; both may be changed at any time.

    Each reply renders the messages anew. What begins like the last prompt and reply is still in the
    key/value cache and is not read again.
    """

    def __init__(
        self, model: Decoder, tokenizer: Tokenizer, sampling: SamplingConfig, system: str = ""
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.sampling = sampling
        self.system = system
        self.messages: list[Message] = []
        self.dropped = 0
        """How many of the oldest messages did not fit when the last reply began."""
        self._reader = Reader(model, model.config.context_length)
        self._replies = 0

    def reply(self, text: str) -> Generator[Piece]:
        """Add a message of the user and stream the answer; closing the iterator ends it early.

        What has been streamed becomes part of the conversation in any case. Raises UserError, and
        leaves the conversation as it was, when the message is too long for the model.
        """
        return self._answer([*self.messages, {"role": "user", "content": text}])

    def retry(self) -> Generator[Piece]:
        """Answer the last message of the user once more, instead of the last reply.

        Raises UserError, and leaves the conversation as it was, when it no longer fits the model.
        """
        users = [i for i, message in enumerate(self.messages) if message["role"] == "user"]
        if not users:
            raise UserError("There is no message to answer again yet.")
        return self._answer(self.messages[: users[-1] + 1])

    def reset(self) -> None:
        """Forget all messages; the system text and the settings stay."""
        self.messages.clear()
        self.dropped = 0

    def as_dict(self) -> dict[str, Any]:
        """What `restore` takes back, for JSON."""
        return {
            "system": self.system,
            "sampling": to_dict(self.sampling),
            "messages": [dict(message) for message in self.messages],
        }

    def restore(self, data: Mapping[str, Any]) -> None:
        """Take over what `as_dict` gave; otherwise raise UserError and change nothing."""
        messages, system = data.get("messages"), data.get("system", "")
        if not isinstance(messages, list) or not isinstance(system, str):
            raise UserError("A saved conversation has a list 'messages' and a text 'system'.")
        checked = [_message(message, i) for i, message in enumerate(messages, 1)]
        sampling = from_dict(SamplingConfig, data.get("sampling", {}), "sampling")
        self.messages, self.system, self.sampling = checked, system, sampling
        self.dropped = 0

    def _answer(self, messages: list[Message]) -> Generator[Piece]:
        prompt = self._prompt(messages)  # first: where it does not fit, nothing has changed
        self.messages = messages
        return self._stream(prompt)

    def _stream(self, prompt: list[int]) -> Generator[Piece]:
        sampling = self.sampling
        if sampling.seed is not None:  # another reply needs other noise, in the same order each run
            sampling = dataclasses.replace(sampling, seed=sampling.seed + self._replies)
        self._replies += 1
        # Only text belongs in a reply: any special token ends it.
        stop_ids = frozenset(self.tokenizer.special.values())
        reply: Message = {"role": "assistant", "content": ""}
        lead = chat_of(self.tokenizer).lead
        self.messages.append(reply)
        for piece in generate(
            self.model,
            self.tokenizer,
            prompt,
            sampling,
            stop_ids,
            overflow="stop",
            reader=self._reader,
        ):
            if lead and piece.text:
                piece = dataclasses.replace(piece, text=piece.text.removeprefix(lead))
                lead = ""
            reply["content"] += piece.text
            yield piece

    def _prompt(self, messages: list[Message]) -> list[int]:
        """The newest messages that leave room for a reply, from a message of the user on."""
        context = self.model.config.context_length
        limit = context - min(self.sampling.max_tokens, context // 4)
        head: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        size = 0
        for first, message in enumerate(messages):
            if message["role"] == "user":
                ids = render(self.tokenizer, head + messages[first:], reply=True).ids
                size = len(ids)
                if size <= limit:
                    self.dropped = first
                    return ids
        with_system = " with the system text" if self.system else ""
        raise UserError(
            f"That message is {size} tokens long{with_system}; this model can take {limit}."
        )


def _message(data: Any, number: int) -> Message:
    """One saved message, checked."""
    if (
        not isinstance(data, Mapping)
        or data.get("role") not in ("user", "assistant")
        or not isinstance(data.get("content"), str)
    ):
        raise UserError(
            f"Message {number} should have a 'role' (user or assistant) and a text 'content'."
        )
    return {"role": data["role"], "content": data["content"]}
