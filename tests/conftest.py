"""What every test shares: one thread, fixed seeds, a tiny tokenizer and a tiny model on demand."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from groundup.models.decoder import Decoder
    from groundup.text.tokenizer import Tokenizer

# Two test processes share two cores; and one thread always sums in the same order.
torch.set_num_threads(1)

TEXT = (
    "From the ground up, a small house grows: first the stones, then the beams, then the roof. "
    "Who builds it? We do! And when it's done, we'll sit by the fire and talk until morning. "
    "The naïve café, 3 × 7 = 21, “quoted”, 日本語, 🙂 — a few characters beyond ASCII.\n"
)


@pytest.fixture(autouse=True)
def seeds() -> None:
    """The same random numbers in every test, whichever tests ran before."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Tokenizer:
    """A byte-level BPE tokenizer of 320 ids."""
    from groundup.text.config import TokenizerConfig
    from groundup.text.train import train_tokenizer

    return train_tokenizer(TokenizerConfig(kind="bpe", vocab_size=320), [TEXT])


@pytest.fixture
def tiny_model(tiny_tokenizer: Tokenizer) -> Decoder:
    """An untrained decoder for `tiny_tokenizer`: 2 layers, width 24, grouped heads of width 10."""
    from groundup.models.config import AttentionConfig, DecoderConfig, FeedForwardConfig
    from groundup.models.decoder import Decoder

    config = DecoderConfig(
        vocab_size=tiny_tokenizer.vocab_size,
        width=24,
        num_layers=2,
        context_length=48,
        attention=AttentionConfig(num_heads=4, num_kv_heads=2, head_width=10, qk_norm=True),
        feed_forward=FeedForwardConfig(width=40),
    )
    return Decoder(config).eval()


@pytest.fixture
def known_roof(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs in this process take the machine's limit as known, and leave torch's settings alone."""
    from groundup.pipeline import run

    monkeypatch.setattr(run, "roof_gflops", lambda policy: 100.0)
    yield
    if torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`refused(words…)` runs the command line and returns its one sentence of complaint."""

    from groundup.cli import main

    def run(*words: object) -> str:
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        error = capsys.readouterr().err
        assert caught.value.code == 2, error
        assert "Traceback" not in error
        last = error.rstrip("\n").splitlines()[-1]
        assert last.startswith("groundup: "), error
        assert len(last) < 600
        return last.removeprefix("groundup: ")

    return run


@pytest.fixture(scope="session")
def tiny_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of made-up text: text.txt (prose) and chat.jsonl (60 conversations)."""
    folder = tmp_path_factory.mktemp("texts")
    generator = random.Random(0)
    words = "the house grows stone by stone and we sit near a fire while rain falls on its roof"

    def sentence() -> str:
        chosen = generator.choices(words.split(), k=generator.randint(4, 12))
        return " ".join(chosen).capitalize() + "."

    paragraphs = (" ".join(sentence() for _ in range(4)) for _ in range(120))
    (folder / "text.txt").write_text("\n\n".join(paragraphs))
    roles = ("user", "assistant") * 2
    chats = [[{"role": role, "content": sentence()} for role in roles] for _ in range(60)]
    lines = (json.dumps({"messages": messages}) + "\n" for messages in chats)
    (folder / "chat.jsonl").write_text("".join(lines))
    return folder


@pytest.fixture(scope="session")
def tiny_recipe(tiny_texts: Path) -> Path:
    """A recipe of five pretraining and four fine-tuning steps of a model of width 32."""
    path = tiny_texts / "tiny.toml"
    path.write_text(
        f"""
        size = 1
        data.sources = [
            {{ name = "{tiny_texts}/text.txt" }},
            {{ name = "{tiny_texts}/chat.jsonl", weight = 0.5 }},
        ]
        device = {{ device = "cpu", dtype = "float32", compile = "off", threads = 1 }}
        tokenizer.vocab_size = 300
        model = {{ width = 32, num_layers = 1, num_heads = 2, context_length = 64 }}
        shards.workers = 1
        evaluate = {{ prompts = ["The "], questions = ["Hi!"], follow_up = "" }}
        [pretrain]
        steps = 5
        rows_per_step = 4
        train = {{ log_every = 1, evaluate_every = 5, sample_every = 5 }}
        [sft]
        steps = 4
        rows_per_step = 4
        train = {{ log_every = 1, evaluate_every = 2, sample_every = 4 }}
        """
    )
    return path


@pytest.fixture(scope="session")
def tiny_run(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run of `tiny_recipe`. Shared by all tests: copy it before changing anything."""
    from groundup.pipeline import run
    from groundup.pipeline.recipe import load_recipe

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "roof_gflops", lambda policy: 100.0)
        run.speedrun(load_recipe(tiny_recipe), folder)
    torch.use_deterministic_algorithms(False)
    return folder
