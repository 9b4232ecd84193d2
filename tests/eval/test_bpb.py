"""Bits per byte: equal to a loop over single tokens, whatever the batches; and its definition."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup.config import UserError
from groundup.device import Policy
from groundup.eval.bpb import Score, score_documents, score_text, score_text_file
from groundup.models.decoder import Decoder
from groundup.models.presets import gpt2, llama
from groundup.text.config import TokenizerConfig
from groundup.text.tokenizer import BPETokenizer, Tokenizer
from groundup.text.train import train_tokenizer
from groundup.text.vocabulary import ALL_BYTES, Vocabulary

POLICY = Policy(device="cpu", compute_dtype="float32", compile=False, threads=1)
TEXTS = [
    "A small house grows from the ground up.",
    "Hm.",
    "",
    "naïve 🙂 日本語, and then a somewhat longer document that fills several windows " * 3,
    "x",
]


@pytest.fixture(scope="module", params=["bpe", "char", "word", "byte"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    config = TokenizerConfig(kind=request.param, vocab_size=280)
    return train_tokenizer(config, TEXTS * 3)


@pytest.fixture
def model(tokenizer: Tokenizer) -> Decoder:
    model = Decoder(
        llama(
            vocab_size=tokenizer.vocab_size,
            width=24,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
            context_length=40,
        )
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


def documents(tokenizer: Tokenizer, texts: list[str] = TEXTS) -> list[np.ndarray]:
    bos = tokenizer.special["<|bos|>"]
    return [np.array([bos, *tokenizer.encode(text)], dtype=np.uint16) for text in texts]


def naive_score(model: Decoder, tokenizer: Tokenizer, docs: list[np.ndarray], length: int) -> Score:
    """One forward pass per token, in fp64 log-probabilities."""
    nll, tokens, size = 0.0, 0, 0
    for ids in docs:
        for target in range(1, len(ids)):
            start = (target - 1) // length * length
            context = torch.tensor(ids[start:target].astype(np.int64))[None]
            with torch.no_grad():
                logprobs = model(context)[0, -1].double().log_softmax(-1)
            nll -= logprobs[int(ids[target])].item()
            tokens += 1
            size += len(tokenizer.decode_bytes([int(ids[target])]))
    return Score(nll, tokens, size)


@pytest.mark.parametrize(("length", "rows"), [(13, 1), (13, 4), (40, 0), (1, 7), (7, 100)])
def test_equals_a_loop_over_single_tokens(model, tokenizer, length, rows) -> None:
    docs = documents(tokenizer)
    score = score_documents(model, tokenizer, docs, length, POLICY, rows=rows)
    expected = naive_score(model, tokenizer, docs, length)
    assert (score.tokens, score.bytes) == (expected.tokens, expected.bytes)
    assert score.bytes == sum(len(text.encode()) for text in TEXTS)
    assert score.nll_nats == pytest.approx(expected.nll_nats, rel=1e-5)
    assert score.bpb == pytest.approx(expected.nll_nats / math.log(2) / expected.bytes, rel=1e-5)
    assert score.perplexity == pytest.approx(
        math.exp(expected.nll_nats / expected.tokens), rel=1e-4
    )


def test_document_order_and_batches_do_not_matter(model, tokenizer) -> None:
    docs = documents(tokenizer)
    scores = [
        score_documents(model, tokenizer, order, 11, POLICY, rows=rows)
        for order in (docs, docs[::-1])
        for rows in (1, 3, 50)
    ]
    for score in scores:
        assert score.tokens == scores[0].tokens
        assert score.nll_nats == pytest.approx(scores[0].nll_nats, rel=1e-6)


def test_a_model_that_knows_nothing_scores_log_vocabulary(tokenizer) -> None:
    model = Decoder(
        gpt2(vocab_size=tokenizer.vocab_size, width=12, num_layers=1, num_heads=2, context_length=9)
    )
    with torch.no_grad():
        model.head_weight.zero_()
    score = score_documents(model, tokenizer, documents(tokenizer), 9, POLICY)
    assert score.nll_per_token == pytest.approx(math.log(tokenizer.vocab_size), rel=1e-6)
    assert score.perplexity == pytest.approx(tokenizer.vocab_size, rel=1e-5)


def test_perplexity_is_the_exp_of_the_mean_not_the_mean_of_exps() -> None:
    easy, hard = Score(1.0, 10, 20), Score(50.0, 10, 30)
    both = easy + hard
    assert both.perplexity == pytest.approx(math.exp(51 / 20))
    assert both.perplexity < (easy.perplexity + hard.perplexity) / 2
    assert both.bpb == pytest.approx(51 / math.log(2) / 50)


def test_special_tokens_are_not_scored(model, tokenizer) -> None:
    end = tokenizer.special["<|end|>"]
    ids = documents(tokenizer, ["some text"])
    closed = [np.append(ids[0], end).astype(np.uint16)]
    plain = score_documents(model, tokenizer, ids, 40, POLICY)
    with_end = score_documents(model, tokenizer, closed, 40, POLICY)
    assert (plain.tokens, plain.bytes) == (with_end.tokens, with_end.bytes)
    assert plain.nll_nats == pytest.approx(with_end.nll_nats, rel=1e-6)


def test_progress_counts_every_token_and_training_goes_on(model, tokenizer) -> None:
    counts: list[int] = []
    model.train()
    docs = iter(documents(tokenizer))  # a stream is enough
    score = score_documents(model, tokenizer, docs, 8, POLICY, rows=2, progress=counts.append)
    assert sum(counts) == score.tokens and len(counts) > 2
    assert model.training


def test_a_file_scores_like_its_text(model, tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "held out.txt"
    path.write_text(TEXTS[3], encoding="utf-8")
    score = score_text_file(model, tokenizer, path, POLICY)
    assert score == score_text(model, tokenizer, TEXTS[3], POLICY, length=40)
    assert score == score_documents(model, tokenizer, documents(tokenizer, [TEXTS[3]]), 40, POLICY)
    assert set(score.as_dict()) >= {"nll_per_token", "tokens", "bits_per_byte"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "no text"),
        (b" \n\n", "no text"),
        (b"PK\x03\x04\0\0text", "NUL"),
        (b"caf\xe9 au lait", "UTF-8"),
    ],
)
def test_files_that_are_not_text(model, tokenizer, tmp_path: Path, content, message) -> None:
    path = tmp_path / "input.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        score_text_file(model, tokenizer, path, POLICY)
    assert "input.txt" in str(error.value)


def test_a_folder_is_not_a_text(model, tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="folder"):
        score_text_file(model, tokenizer, tmp_path, POLICY)


def test_nothing_to_score_and_windows_that_do_not_fit(model, tokenizer) -> None:
    for nothing in ([], documents(tokenizer, ["", ""])):
        with pytest.raises(UserError, match="no text to score"):
            score_documents(model, tokenizer, nothing, 8, POLICY)
    for length in (0, 41):
        with pytest.raises(UserError, match=f"{length} tokens"):
            score_documents(model, tokenizer, documents(tokenizer), length, POLICY)


def test_without_a_bos_the_first_token_is_given() -> None:
    tokenizer = BPETokenizer(Vocabulary("bpe", r"\S+|\s+", ALL_BYTES))
    model = Decoder(
        llama(vocab_size=256, width=24, num_layers=1, num_heads=2, num_kv_heads=1, context_length=9)
    ).eval()
    score = score_text(model, tokenizer, "ground up, up, up", POLICY)
    expected = naive_score(model, tokenizer, [np.array(tokenizer.encode("ground up, up, up"))], 9)
    assert score.tokens == score.bytes == len("ground up, up, up") - 1
    assert score.nll_nats == pytest.approx(expected.nll_nats, rel=1e-5)
