"""Stage 4: learn the language, one next token at a time, from all documents as plain text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from groundup.config import require
from groundup.pipeline.stage import Stage
from groundup.pipeline.start import start_folder
from groundup.pipeline.store import read_index
from groundup.pipeline.training import TrainingSection, run_training, verify

if TYPE_CHECKING:
    from pathlib import Path

    from groundup.models.decoder import Decoder
    from groundup.pipeline.run import Run

EVALUATION_TOKENS = 40_000


@dataclass(frozen=True, kw_only=True)
class PretrainSection(TrainingSection):
    """How the base model is trained. With neither minutes, epochs nor steps: the dial's tokens, or
    after `model.start` nothing at all."""

    separate_documents: bool = False
    """Attention stays inside documents. Off, a window may look back into the document before."""
    sample_prompt: str = ""
    """What the samples during training continue; empty starts a document."""


def work(run: Run, section: PretrainSection) -> dict[str, Any]:
    from groundup.data.loader import PretrainLoader
    from groundup.models.folder import save_model
    from groundup.pipeline.measure import heldout_evaluation, text_sample
    from groundup.pipeline.shape import default_steps, rows_per_step
    from groundup.pipeline.start import row_length

    start = start_folder(run.config)
    if start is not None and not (section.minutes or section.epochs or section.steps):
        return _taken_over(run, start)
    index = read_index(run.folder)
    verify(run, [*run.shards("train"), *run.shards("heldout")])
    model = _first_model(run, start).to(run.policy.torch_device)
    shape = model.config
    length = row_length(run.config.model, shape)
    train = run.shards("train")
    available = sum(shards.num_tokens for shards in train)
    require(
        length <= available,
        f"model.context_length is {length}, but there are only {available} tokens to train on. "
        "Shorten it, or add text.",
    )
    loader = PretrainLoader(
        train,
        [source["weight"] for source in index],
        length,
        rows_per_step(run.config, section, shape),
        run.config.seed,
        documents=section.separate_documents,
    )

    def evaluate() -> dict[str, float]:
        return heldout_evaluation(run, model, EVALUATION_TOKENS)

    if not (section.minutes or section.epochs or section.steps):
        section = replace(section, steps=default_steps(run.config, loader, shape.vocab_size))
    results = run_training(
        run,
        "pretrain",
        section,
        model,
        loader,
        evaluate=evaluate if any(source["heldout"] for source in index) else None,
        sample=lambda: text_sample(run, model, section.sample_prompt),
    )
    results["parameters"] = model.num_parameters()
    if run.world.is_main:
        save_model(run.folder / "base", model, run.tokenizer, {"stage": "pretrain", **results})
    run.world.barrier()
    return results


def _first_model(run: Run, start: Path | None) -> Decoder:
    """The model before the first step: fresh weights, or those of the start model, in fp32."""
    from groundup.models.decoder import Decoder
    from groundup.models.folder import load_model
    from groundup.pipeline.shape import model_shape

    if start is None:
        return Decoder(model_shape(run.config, run.tokenizer.vocab_size))
    return load_model(start)[0].train()


def _taken_over(run: Run, start: Path) -> dict[str, Any]:
    """The start model as it is becomes the base model."""
    from groundup.models.folder import dtype_of, load_model, save_model

    model, _, meta = load_model(start, dtype=dtype_of(start))
    run.console.say(f"nothing to do: {run.config.model.start} is the base model")
    if run.world.is_main:
        save_model(run.folder / "base", model, run.tokenizer, {"stage": "start", "start": meta})
    run.world.barrier()
    return {"parameters": model.num_parameters()}


STAGE = Stage(
    name="pretrain",
    after="shards",
    title="Pretrain",
    section=PretrainSection,
    reads=("seed", "size", "model", "device"),
    ignores=("train", "sample_prompt"),
    work=work,
    artifact="base",
)
