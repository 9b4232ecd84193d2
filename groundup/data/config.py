"""What to read and how to clean it: the `data` section of a recipe."""

from __future__ import annotations

from dataclasses import dataclass

from groundup.config import UserError


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One source of documents and its share of the mixture.

    `name` is a named corpus ("shakespeare", "chitchat"), a path to a .txt, .jsonl or .parquet file,
    a folder or glob of such files, the https address of such a file (fetched once, and checked
    where "#sha256=…" follows), or "hf:org/name" for a dataset of the Hugging Face hub.
    `weight` says how many times an epoch of the mixture goes round the source: at 0.5 half of it.
    """

    name: str
    weight: float = 1.0
    text_column: str = "text"
    messages_column: str = "messages"
    split: str = "train"  # of a Hugging Face dataset; has no meaning for the other kinds
    max_documents: int = 0  # 0 reads them all

    def __post_init__(self) -> None:
        if not self.name:
            raise UserError("A data source has no name: give a corpus, a path or hf:org/name.")
        if not self.weight > 0:
            raise UserError(f"The weight of source {self.name} must be above 0, not {self.weight}.")
        if self.max_documents < 0:
            raise UserError(
                f"max_documents of source {self.name} must be 0 (all) or more, "
                f"not {self.max_documents}."
            )


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """All sources of a run and the cleaning they share."""

    sources: tuple[SourceConfig, ...] = (
        SourceConfig(name="shakespeare"),
        SourceConfig(name="chitchat"),
    )
    heldout_fraction: float = 0.05
    deduplicate: bool = True
    filter_slurs: bool = True

    def __post_init__(self) -> None:
        if not self.sources:
            raise UserError("data.sources is empty: name at least one corpus, path or hf:org/name.")
        names = [source.name for source in self.sources]
        for name in names:
            if names.count(name) > 1:
                raise UserError(
                    f"Source {name} is listed twice: list it once with a higher weight."
                )
        if not 0 <= self.heldout_fraction < 1:
            raise UserError(
                f"data.heldout_fraction must be from 0 to below 1, not {self.heldout_fraction}."
            )
