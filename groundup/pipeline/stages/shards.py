"""Stage 3: turn the documents into token ids on disk, once, outside the training loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from groundup.config import require
from groundup.data.documents import read_documents
from groundup.pipeline.stage import Stage
from groundup.pipeline.store import documents_path, read_index

if TYPE_CHECKING:
    from groundup.pipeline.run import Run


@dataclass(frozen=True, kw_only=True)
class ShardsSection:
    """Settings of the tokenisation."""

    workers: int = 0
    """Processes that tokenise; 0 takes all cores."""

    def __post_init__(self) -> None:
        require(self.workers >= 0, f"shards.workers cannot be negative: {self.workers}.")


def work(run: Run, config: ShardsSection) -> dict[str, Any]:
    from groundup.data.shards import write_shards
    from groundup.device import available_cores

    results: dict[str, Any] = {"tokens": 0, "heldout_tokens": 0, "bytes": 0}
    for source in read_index(run.folder):
        for split in ("train", "heldout") if source["heldout"] else ("train",):
            if not run.world.is_main:
                continue
            manifest = write_shards(
                run.folder / "shards" / f"{source['key']}-{split}",
                read_documents(documents_path(run.folder, source["key"], split)),
                run.tokenizer,
                workers=config.workers or available_cores(),
                progress=run.console.start_count("documents tokenised"),
            )
            run.console.end_progress()
            results["tokens" if split == "train" else "heldout_tokens"] += manifest.num_tokens
            results["bytes"] += manifest.num_bytes if split == "train" else 0
    run.world.barrier()
    if run.world.is_main:
        results["bytes_per_token"] = round(results["bytes"] / results["tokens"], 4)
        run.console.say(
            f"{results['tokens']:,} tokens, {results['bytes_per_token']:.2f} bytes each"
        )
    return results


def is_intact(run: Run) -> bool:
    """Whether every source still has its shards: where some are damaged, the user is told to delete
    their folder."""
    return all(
        (run.folder / "shards" / f"{source['key']}-{split}").exists()
        for source in read_index(run.folder)
        for split in (("train", "heldout") if source["heldout"] else ("train",))
    )


STAGE = Stage(
    name="shards",
    after="tokenizer",
    title="Tokenise",
    section=ShardsSection,
    work=work,
    is_intact=is_intact,
    ignores=("workers",),
)
