"""What a tokenizer is trained with. Importable without torch or any tokenizer library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from groundup.config import require

NUM_BYTES = 256

# Every tokenizer ends with these, in this order. Text can never become one of them: they are
# only ever placed by id (see chat.py).
SPECIAL_TOKENS = (
    "<|bos|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<|tool_call|>",
    "<|tool_output|>",
)


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """How to train a tokenizer.

    kind: "bpe" merges bytes that often stand together; "char" and "word" give every frequent
        character or word an id and spell the others in bytes; "byte" is the 256 bytes alone.
    vocab_size: ids in all, the 256 bytes and the special tokens included. An upper bound: a text
        too small to fill it gives a smaller vocabulary and a logged warning ("char" and "word"
        take what there is without one). A "byte" tokenizer always has 263.
    pattern: how "bpe" and "word" cut text into words before anything else. "gpt4" takes digits in
        groups of up to three, "digits" is the same with one digit at a time, "gpt2" is GPT-2's.
    max_characters: training reads this much text and ignores the rest.
    """

    kind: Literal["bpe", "char", "word", "byte"] = "bpe"
    vocab_size: int = 4096
    pattern: Literal["gpt4", "digits", "gpt2"] = "gpt4"
    max_characters: int = 1_000_000_000

    def __post_init__(self) -> None:
        smallest = NUM_BYTES + len(SPECIAL_TOKENS)
        require(
            self.vocab_size >= smallest,
            f"A vocabulary of {self.vocab_size} is too small: the {NUM_BYTES} bytes and the "
            f"{len(SPECIAL_TOKENS)} special tokens alone need vocab_size = {smallest}.",
        )
        require(
            self.max_characters > 0,
            f"max_characters should be positive, but is {self.max_characters}.",
        )
