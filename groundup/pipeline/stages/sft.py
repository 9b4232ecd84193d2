"""Stage 5: supervised fine-tuning on conversations; only the assistant's words are learned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from groundup.data.documents import Document, read_documents
from groundup.pipeline.stage import Stage
from groundup.pipeline.store import documents_path, read_index
from groundup.pipeline.training import TrainingSection, run_training, verify

if TYPE_CHECKING:
    from groundup.pipeline.run import Run

EVALUATION_BATCHES = 5
"""Of about 8192 tokens, drawn from all held-out conversations, each time the loss is estimated."""


@dataclass(frozen=True, kw_only=True)
class SFTSection(TrainingSection):
    """How the chat model is tuned. Without minutes, epochs or steps the stage does nothing."""

    both_sides: bool = True
    """Learn each conversation a second time with the roles exchanged, from its second turn on."""


def work(run: Run, section: SFTSection) -> dict[str, Any]:
    from groundup.data.conversations import (
        ConversationLoader,
        PackedConversations,
        write_conversations,
    )
    from groundup.models.folder import load_model, save_model
    from groundup.pipeline.measure import chat_sample
    from groundup.pipeline.shape import rows_per_step
    from groundup.pipeline.start import row_length
    from groundup.train.objectives import NextTokenLoss, estimate_loss

    sources = [source for source in read_index(run.folder) if source["conversations"]]
    if not sources or not (section.minutes or section.epochs or section.steps):
        why = "no training time was asked for" if sources else "no source holds conversations"
        run.console.say(f"nothing to do: {why}")
        return {"skipped": why}
    start = run.model_folder("mid", "base")
    assert start is not None, "a stage before this one trains a base model"
    model, tokenizer, _ = load_model(start, run.policy.device)
    length = row_length(run.config.model, model.config)
    held_out = [source for source in sources if source["heldout"]]

    def pack(name: str, split: str, chosen: list[dict]) -> PackedConversations:
        folder = run.folder / "shards" / f"conversations-{name}"
        if run.world.is_main:
            paths = [documents_path(run.folder, source["key"], split) for source in chosen]
            write_conversations(
                folder,
                (d for path in paths for d in _views(path, section.both_sides)),
                tokenizer,
                length,
                run.console.start_count("conversations packed"),
            )
            run.console.end_progress()
        run.world.barrier()
        return PackedConversations(folder, tokenizer.fingerprint)

    packed = [pack(f"{source['key']}-train", "train", [source]) for source in sources]
    weights = [source["weight"] for source in sources]
    unseen = [pack("heldout", "heldout", held_out)] if held_out else []
    verify(run, [*packed, *unseen])
    rows = rows_per_step(run.config, section, model.config)
    loader = ConversationLoader(packed, weights, length, rows, run.config.seed)
    loss = NextTokenLoss(model)

    def evaluate() -> dict[str, float]:
        # A loader's order spreads the rows over the whole set; the same rows at every evaluation.
        found = unseen[0].manifest.num_rows
        rows = min(max(1, 8192 // length), found)
        spread = ConversationLoader(unseen, [1.0], length, rows, run.config.seed)
        batches = (spread.step(i) for i in range(min(EVALUATION_BATCHES, found // rows)))
        with run.policy.autocast():
            on_device = (batch.to(run.policy.torch_device) for batch in batches)
            return {"val_loss": estimate_loss(loss, on_device)}

    def sample() -> str:
        messages = chat_sample(run, model, ["Hi! How are you?"])
        return "\n".join(f"{m['role']}: {m['content']}" for m in messages)

    results = run_training(
        run,
        "sft",
        section,
        model,
        loader,
        evaluate=evaluate if held_out else None,
        sample=sample,
        keep_best=bool(held_out),
        evaluations=4,
        samples=2,
    )
    results["conversations"] = sum(one.manifest.num_conversations for one in packed)
    if run.world.is_main:
        save_model(run.folder / "sft", model, tokenizer, {"stage": "sft", **results})
    run.world.barrier()
    return results


def _views(path: Any, both_sides: bool) -> Iterator[Document]:
    """Each conversation, and again with the roles exchanged so that both speakers are learned."""
    from dataclasses import replace

    swapped = {"user": "assistant", "assistant": "user"}
    for document in read_documents(path):
        if not document.messages:
            continue
        yield document
        roles = [message["role"] for message in document.messages]
        if both_sides and set(roles) <= set(swapped) and len(roles) > 2:
            messages = [{**m, "role": swapped[m["role"]]} for m in document.messages[1:]]
            yield replace(document, id=f"{document.id}#swapped", messages=tuple(messages))


STAGE = Stage(
    name="sft",
    after="pretrain",
    title="Fine-tune on conversations",
    section=SFTSection,
    reads=("seed",),
    ignores=("train",),
    work=work,
    artifact="sft",
)
