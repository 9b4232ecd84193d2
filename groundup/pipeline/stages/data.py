"""Stage 1: real text in, clean documents out, some held out for measuring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from groundup.data.config import DataConfig
from groundup.pipeline.stage import Stage
from groundup.pipeline.store import DOCUMENTS, write_index

if TYPE_CHECKING:
    from groundup.pipeline.run import Run


def contents(config: DataConfig) -> dict[str, str]:
    """The SHA-256 of every file of the user's own, so that an edit is noticed."""
    from groundup.data.sources import find_files, is_local
    from groundup.files import sha256_file

    own = [source.name for source in config.sources if is_local(source.name)]
    return {str(file): sha256_file(file) for name in own for file in find_files(name)}


def work(run: Run, config: DataConfig) -> dict[str, Any]:
    from groundup.data.sources import fetch_sources
    from groundup.data.split import prepare

    if not run.world.is_main:
        run.world.barrier()
        return {}
    fetched = run.console.start_count("MB fetched")
    fetch_sources((source.name for source in config.sources), lambda n, _: fetched(n // 10**6))
    run.console.end_progress()
    move = run.console.start_count("documents read")
    prepared = prepare(config, run.folder / DOCUMENTS, lambda name, count: move(count))
    run.console.end_progress()
    index: list[dict[str, object]] = [
        {
            "name": source.config.name,
            "key": source.key,
            "weight": source.config.weight,
            "conversations": source.has_messages,
            "heldout": source.stats.heldout_documents > 0,
        }
        for source in prepared.sources
    ]
    write_index(run.folder, index)
    stats = prepared.stats()
    total = stats["total"]
    run.console.say(
        f"{total['train_documents']:,} documents, {total['train_characters'] / 1e6:.1f} M "
        f"characters to train on; {total['heldout_documents']:,} held out"
    )
    run.world.barrier()
    return stats


STAGE = Stage(
    name="data",
    after=None,
    title="Get and clean the text",
    section=DataConfig,
    inputs=lambda config: contents(config.data),
    work=work,
    outputs=("documents/index.json",),
)
