"""Tokenizer speed: training with rustbpe and tokenizers, encoding with five sides.

    python bench/tokenizer.py [--json PATH] [--text FILE] [--vocabulary N] [--rounds N]

The default text is the first 16 MB of the named corpora, encoding takes the first 4 MB of it. All
sides encode the same documents with the same vocabulary and must give the same number of tokens:

    groundup             encode_batch, which calls tiktoken with our spelling of the split pattern
    groundup processes   the same in one worker process per core
    tiktoken             Encoding.encode_ordinary with tiktoken's own spelling of the pattern
    tiktoken threads     Encoding.encode_ordinary_batch with one thread per core
    tokenizers           Tokenizer.encode_batch_fast, one thread
    tokenizers threads   the same on all cores

Sides take turns. Speeds, in MB of UTF-8 per second, are those of each side's best round: what else
the machine does can only slow a round down.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import finish

from groundup.config import UserError
from groundup.data.corpora import read_corpus
from groundup.device import available_cores, cpu_name
from groundup.text import evaluate
from groundup.text.base import PieceTokenizer
from groundup.text.config import TokenizerConfig
from groundup.text.split import PATTERNS
from groundup.text.store import plain_tokenizer
from groundup.text.tokenizer import from_vocabulary
from groundup.text.train import train_tokenizer

TRAIN_BYTES, ENCODE_BYTES = 16_000_000, 4_000_000
# As in tiktoken_ext/openai_public.py.
OPENAI_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
Run = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description="Tokenizer speed, side by side")
    parser.add_argument("--json", type=Path, help="also write the result here")
    parser.add_argument("--text", type=Path, help="a text file instead of the named corpora")
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    texts = up_to(documents(options.text), TRAIN_BYTES)
    config = TokenizerConfig(vocab_size=options.vocabulary)
    training = alternate(training_sides(texts, config), size_of(texts), options.rounds)
    tokenizer = train_tokenizer(config, texts)
    assert isinstance(tokenizer, PieceTokenizer)
    some = up_to(texts, ENCODE_BYTES)
    encoding = alternate(encoding_sides(some, tokenizer), size_of(some), options.rounds)
    if len({row["tokens"] for row in encoding}) != 1:
        raise UserError(f"The sides disagree about the number of tokens: {encoding}")

    vocabularies = {"groundup": tokenizer, **evaluate.installed_vocabularies()}
    packing = evaluate.compare(vocabularies, evaluate.sample_texts() | {"corpus": "".join(some)})
    print(evaluate.table(packing))
    speed = {row["side"]: row["megabytes_per_second"] for row in encoding}
    result = {
        "cpu": cpu_name(),
        "cores": available_cores(),
        "vocabulary": options.vocabulary,
        "training": training,
        "encoding": encoding,
        "encode_ratio_vs_tiktoken": round(speed["groundup"] / speed["tiktoken"], 2),
        "encode_ratio_vs_tokenizers": round(speed["groundup"] / speed["tokenizers"], 2),
        "bytes_per_token": [
            {"text": r.text, "tokenizer": r.tokenizer, "value": round(r.bytes_per_token, 3)}
            for r in packing
        ],
    }
    finish(result, options.json)


def training_sides(texts: list[str], config: TokenizerConfig) -> dict[str, Run]:
    """Both trainers on the same words. They break ties differently, so their merges may differ."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    def tokenizers() -> None:
        tokenizer = Tokenizer(models.BPE())
        split = pre_tokenizers.Split(Regex(PATTERNS[config.pattern]), "isolated")
        visible = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, visible])  # pyright: ignore
        trainer = trainers.BpeTrainer(
            vocab_size=config.vocab_size,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)

    return {"rustbpe": lambda: train_tokenizer(config, texts) and None, "tokenizers": tokenizers}


def encoding_sides(texts: list[str], tokenizer: PieceTokenizer) -> dict[str, Run]:
    """Every side answers with its number of tokens."""
    import tiktoken

    cores = available_cores()
    own = from_vocabulary(tokenizer.vocabulary)
    pooled = from_vocabulary(tokenizer.vocabulary)
    pooled.encode_batch(texts, cores)  # starts the processes, which stay
    theirs = tiktoken.Encoding(
        "bench",
        pat_str=OPENAI_PATTERN,
        mergeable_ranks=tokenizer.vocabulary.ids,
        special_tokens={},
    )
    slow = plain_tokenizer(tokenizer.vocabulary)

    def tokenizers(parallel: bool) -> int:
        os.environ["TOKENIZERS_PARALLELISM"] = str(parallel).lower()
        return sum(map(len, slow.encode_batch_fast(texts, add_special_tokens=False)))

    return {
        "groundup": lambda: sum(map(len, own.encode_batch(texts))),
        "groundup processes": lambda: sum(map(len, pooled.encode_batch(texts, cores))),
        "tiktoken": lambda: sum(len(theirs.encode_ordinary(text)) for text in texts),
        "tiktoken threads": lambda: sum(
            map(len, theirs.encode_ordinary_batch(texts, num_threads=cores))
        ),
        "tokenizers": lambda: tokenizers(parallel=False),
        "tokenizers threads": lambda: tokenizers(parallel=True),
    }


def alternate(sides: dict[str, Run], num_bytes: int, rounds: int) -> list[dict[str, Any]]:
    """Let the sides take turns; a row each with its best round."""
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    answers: dict[str, Any] = {}
    for round_number in range(rounds):
        for side, run in sides.items():
            start = time.perf_counter()
            answers[side] = run()
            seconds[side].append(time.perf_counter() - start)
            print(f"round {round_number + 1}: {side} {seconds[side][-1]:.2f} s", flush=True)
    return [
        {
            "side": side,
            "seconds": round(min(times), 3),
            "megabytes_per_second": round(num_bytes / min(times) / 1e6, 2),
            **({} if answers[side] is None else {"tokens": answers[side]}),
        }
        for side, times in seconds.items()
    ]


def documents(path: Path | None) -> list[str]:
    if path is not None:
        return path.read_text(encoding="utf-8").split("\n\n")
    return [doc.as_text() for name in ("shakespeare", "chitchat") for doc in read_corpus(name)]


def up_to(texts: list[str], num_bytes: int) -> list[str]:
    """The first documents, until they are `num_bytes` long together."""
    taken, size = [], 0
    for text in texts:
        if size >= num_bytes:
            break
        taken.append(text)
        size += len(text.encode())
    return taken


def size_of(texts: list[str]) -> int:
    return sum(len(text.encode()) for text in texts)


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
