"""Stage 6: measure the models on held-out text, and let them speak."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from groundup.pipeline.stage import Stage
from groundup.pipeline.store import read_index

if TYPE_CHECKING:
    from groundup.eval.bpb import Score
    from groundup.pipeline.run import Run


@dataclass(frozen=True, kw_only=True)
class EvaluateSection:
    """What is asked of the finished models."""

    prompts: tuple[str, ...] = ("ROMEO:\n", "The ", "Hello! ")
    """Texts that the base model continues."""
    questions: tuple[str, ...] = (
        "Hello!",
        "Hi, how are you today?",
        "What do you like to do for fun?",
        "Do you have any pets?",
        "What is your favorite food?",
    )
    """First turns of chats with the chat model."""
    follow_up: str = "That sounds nice. Tell me more!"
    """The second user turn of every chat; empty for one turn."""


def work(run: Run, section: EvaluateSection) -> dict[str, Any]:
    from groundup.models.folder import load_model
    from groundup.pipeline.measure import chat_sample, heldout_score, text_sample

    base, _, _ = load_model(run.folder / "base", run.policy.device)
    names = [source["name"] for source in read_index(run.folder) if source["heldout"]]
    by_source = {}
    for name, shards in zip(names, run.shards("heldout"), strict=True):
        move = run.console.start_progress(shards.num_tokens)
        by_source[name] = heldout_score(run, base, [shards], progress=move)
        run.console.end_progress()
    results: dict[str, Any] = {
        "texts": [text_sample(run, base, prompt, 120) for prompt in section.prompts],
        "chats": [],
    }
    if by_source:
        results |= _figures(by_source)
        run.console.say(
            f"held-out {results['val_bpb']:.4f} bits per byte "
            f"over {results['heldout_bytes']:,} bytes"
        )
    tuned = run.model_folder("rl", "sft")
    if tuned is not None:
        chat, _, _ = load_model(tuned, run.policy.device)
        for question in section.questions:
            turns = [question, section.follow_up] if section.follow_up else [question]
            results["chats"].append(chat_sample(run, chat, turns))
    return results


def _figures(by_source: dict[str, Score]) -> dict[str, Any]:
    total = functools.reduce(operator.add, by_source.values())
    return {
        "val_bpb": round(total.bpb, 5),
        "val_loss": round(total.nll_per_token, 5),
        "val_perplexity": round(total.perplexity, 3),
        "heldout_tokens": total.tokens,
        "heldout_bytes": total.bytes,
        "val_bpb_by_source": {name: round(score.bpb, 5) for name, score in by_source.items()},
    }


STAGE = Stage(
    name="evaluate",
    after="sft",
    title="Evaluate",
    section=EvaluateSection,
    work=work,
)
