"""Stage 2: learn the vocabulary from the training documents alone, or take over a model's."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from groundup.data.documents import read_documents
from groundup.pipeline.stage import Stage
from groundup.pipeline.start import identity, start_folder, start_tokenizer
from groundup.pipeline.store import documents_path, read_index
from groundup.text.config import TokenizerConfig

if TYPE_CHECKING:
    from pathlib import Path

    from groundup.pipeline.run import Run
    from groundup.text.tokenizer import Tokenizer


def work(run: Run, config: TokenizerConfig) -> dict[str, Any]:
    if run.world.is_main:
        start = start_folder(run.config)
        tokenizer = _trained(run, config) if start is None else _taken_over(run, start)
        tokenizer.save(run.folder / "tokenizer")
    run.world.barrier()
    return {"vocab_size": run.tokenizer.vocab_size, "kind": run.tokenizer.kind}


def _trained(run: Run, config: TokenizerConfig) -> Tokenizer:
    from groundup.text.train import train_tokenizer

    paths = [documents_path(run.folder, s["key"], "train") for s in read_index(run.folder)]
    documents = itertools.chain.from_iterable(map(read_documents, paths))
    return train_tokenizer(config, (document.as_text() for document in documents))


def _taken_over(run: Run, start: Path) -> Tokenizer:
    """The start model's. Where conversations are to be learned, one it cannot hold is refused now,
    and not after an hour of pretraining."""
    from groundup.text.chat import chat_of

    tokenizer, notes = start_tokenizer(start, run.config.model.start)
    run.console.say(f"that of {run.config.model.start}")
    for note in notes:
        run.console.say(note)
    tuning = vars(run.config)["sft"]
    wanted = tuning.minutes or tuning.epochs or tuning.steps
    if wanted and any(source["conversations"] for source in read_index(run.folder)):
        chat_of(tokenizer)
    return tokenizer


STAGE = Stage(
    name="tokenizer",
    after="data",
    title="Train the tokenizer",
    section=TokenizerConfig,
    inputs=identity,
    work=work,
    outputs=("tokenizer/tokenizer.json",),
)
