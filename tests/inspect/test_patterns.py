"""`groundup show patterns`: roles and shares by hand, heads taken out, models that are given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from groundup.config import UserError
from groundup.inspect import induction, patterns, show
from groundup.models.decoder import Decoder
from groundup.models.encoder import Encoder
from groundup.models.encoder_config import bert
from groundup.models.folder import save_any, save_model
from groundup.models.presets import qwen3
from groundup.nn.capture import capture

SHAPE: dict[str, Any] = {"num_layers": 3, "width": 24, "num_heads": 4, "context_length": 60}


def test_roles_by_hand() -> None:
    ids = torch.tensor([[5, 6, 5, 7, 5, 6]])
    roles = patterns.roles(ids)
    followed = {tuple(place) for place in roles["after same"][0].nonzero().tolist()}
    assert followed == {(2, 1), (4, 1), (4, 3), (5, 2)}
    assert roles["previous"][0].nonzero().tolist() == [[i, i - 1] for i in range(1, 6)]
    assert roles["next"][0].nonzero().tolist() == [[i, i + 1] for i in range(5)]
    assert roles["first"][0].nonzero().tolist() == [[i, 0] for i in range(2, 6)]
    even = torch.full((1, 6, 6), 0.1)
    assert patterns.share(even, roles["after same"]) == pytest.approx((0.1 + 0.2 + 0.1) / 3)
    assert patterns.share(even, torch.zeros(1, 6, 6, dtype=torch.bool)) == 0


def test_a_row_repeats_and_only_what_repeats_is_known() -> None:
    rows = induction.draw(np.random.default_rng(3), 50, 40)
    for ids, known in zip(rows.ids.tolist(), rows.known.tolist(), strict=True):
        period = known.index(True) - 1
        assert 6 <= period <= 20 and all(known[period + 1 :])
        assert ids == (ids[:period] * 7)[:40]


def test_a_head_that_is_taken_out_finds_nothing_and_comes_back() -> None:
    model = Decoder(qwen3(**SHAPE, vocab_size=31)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ids = torch.randint(0, 31, (1, 9))
    before = model(ids)
    with patterns.without(model, 2, 3), capture(model) as seen:
        changed = model(ids)
    found = [seen[f"blocks.{layer}.attention"][0].found for layer in range(3)]
    empty = [[not found[layer][:, head].any() for head in range(4)] for layer in range(3)]
    assert [(i + 1, j + 1) for i in range(3) for j in range(4) if empty[i][j]] == [(2, 3)]
    assert not torch.allclose(changed, before) and torch.equal(model(ids), before)


def _head(layer: int, **shares: float) -> patterns.Head:
    return patterns.Head(
        layer=layer, head=1, weights=torch.eye(3), shares={"a": 0.0, "b": 0.0} | shares, tokens=1.0
    )


def test_of_many_heads_those_are_chosen_that_do_most_of_one_thing() -> None:
    heads = [_head(1, a=0.1), _head(2, b=0.9), _head(3, a=0.5, b=0.8), _head(4), _head(5, a=0.2)]
    assert patterns.choose(heads) == heads
    chosen = patterns.choose(heads, 3)
    assert [(head.layer, head.role) for head in chosen] == [(2, "b"), (3, "a"), (5, "a")]


def test_what_is_trained_foretells_the_repetition(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(induction, "train", lambda: trained)
    with torch.random.fork_rng():
        trained = induction.Decoder(induction.shape()).eval()
    text = patterns.show(tmp_path / "patterns.png")
    assert (tmp_path / "patterns.png").read_bytes().startswith(b"\x89PNG")
    assert text.count("\nlayer ") == induction.LAYERS * induction.HEADS
    assert "after same" in text and "next" not in text.splitlines()[1]


@pytest.mark.slow
def test_training_finds_the_two_steps_of_induction() -> None:
    state = torch.random.get_rng_state()
    model = induction.train()
    assert torch.equal(torch.random.get_rng_state(), state)
    rows = induction.draw(np.random.default_rng(5), 64)
    with torch.no_grad():
        assert induction.loss(model, rows) < 0.3
    reading = patterns.Reading(title="", model=model, ids=rows.ids, labels=[])
    heads = patterns.measure(reading)
    assert max(h.shares["previous"] for h in heads if h.layer == 1) > 0.4
    assert max(h.shares["after same"] for h in heads if h.layer == 2) > 0.6


def test_a_given_decoder_reads_a_text(tmp_path: Path, tiny_tokenizer) -> None:
    model = Decoder(qwen3(**SHAPE, vocab_size=tiny_tokenizer.vocab_size)).eval()
    save_model(tmp_path / "model", model, tiny_tokenizer, {})
    text = show.show("patterns", tmp_path / "a.png", str(tmp_path / "model"), "a $1 naïve 日 a $1")
    ids = [tiny_tokenizer.special["<|bos|>"], *tiny_tokenizer.encode("a $1 naïve 日 a $1")]
    row = torch.tensor([ids])
    with torch.no_grad():
        loss = F.cross_entropy(model(row)[0, :-1], row[0, 1:]).item()
    assert f"{len(ids)} tokens at {loss:.2f} nats" in text
    assert "Of 12 heads" in text and text.count("\nlayer ") == patterns.SHOWN
    for wrong, words in (("a " * 80, "at most 60"), ("a", "too short")):
        with pytest.raises(UserError, match=words):
            patterns.show(tmp_path / "a.png", str(tmp_path / "model"), wrong)


def test_an_encoder_looks_ahead_too(tmp_path: Path, tiny_tokenizer) -> None:
    model = Encoder(bert(**SHAPE, vocab_size=tiny_tokenizer.vocab_size)).eval()
    save_any(tmp_path / "model", model, tiny_tokenizer, {})
    text = patterns.show(tmp_path / "a.svg", str(tmp_path / "model"))
    assert "next" in text.splitlines()[1] and "–" in text and "nats a token" not in text


def test_other_topics_take_no_model(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--model and --text are for patterns"):
        show.show("masks", tmp_path / "a.png", "some-model")
    with pytest.raises(UserError, match="--text is for a model"):
        show.show("patterns", tmp_path / "a.png", "", "some text")
