"""Stage 2: learn the vocabulary from the training documents alone."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from groundup.data.documents import read_documents
from groundup.pipeline.stage import Stage
from groundup.pipeline.store import documents_path, read_index
from groundup.text.config import TokenizerConfig

if TYPE_CHECKING:
    from groundup.pipeline.run import Run


def work(run: Run, config: TokenizerConfig) -> dict[str, Any]:
    from groundup.text.train import train_tokenizer

    paths = [documents_path(run.folder, s["key"], "train") for s in read_index(run.folder)]
    if run.world.is_main:
        documents = itertools.chain.from_iterable(map(read_documents, paths))
        train_tokenizer(config, (d.as_text() for d in documents)).save(run.folder / "tokenizer")
    run.world.barrier()
    return {"vocab_size": run.tokenizer.vocab_size, "kind": run.tokenizer.kind}


STAGE = Stage(
    name="tokenizer",
    after="data",
    title="Train the tokenizer",
    section=TokenizerConfig,
    work=work,
    outputs=("tokenizer/tokenizer.json",),
)
