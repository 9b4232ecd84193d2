"""Embedding: equal to sentence-transformers' recipe over transformers, order and length kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from groundup.cli import main
from groundup.config import UserError
from groundup.infer.embed import Embedding, embed, read_embedding
from groundup.models.encoder import Encoder
from groundup.models.encoder_config import HeadConfig, bert, modernbert
from groundup.models.folder import load_any, save_any
from groundup.text.framing import frame
from groundup.text.wordpiece import ROLES, WordPieceTokenizer

WORDS = ["the", "house", "grows", "a", "cat", "sat", "on", "stones", "rain", "##s"]
TEXTS = ["The house grows", "a cat", "", "rain on the house on the stones " * 4, "a cat"]


@pytest.fixture(scope="module")
def tokenizer() -> WordPieceTokenizer:
    off = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [{"id": i, "content": t, **off, "special": True} for i, t in enumerate(ROLES.values())]
    model = {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {word: id for id, word in enumerate([*ROLES.values(), *WORDS])},
    }
    normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True}
    normalizer |= {"strip_accents": None, "lowercase": True}  # type: ignore[dict-item]
    parts = {"normalizer": normalizer, "pre_tokenizer": {"type": "BertPreTokenizer"}}
    return WordPieceTokenizer({"version": "1.0", "added_tokens": added, **parts, "model": model})


@pytest.fixture
def folder(tmp_path: Path, tokenizer: WordPieceTokenizer) -> Path:
    """An encoder as sentence-transformers keeps it: mean pooling, normalised, 16 tokens at most."""
    config = bert(vocab_size=tokenizer.vocab_size, width=20, num_layers=2, num_heads=2)
    model = Encoder(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    path = tmp_path / "model"
    save_any(path, model, tokenizer, {"made": "here"})
    (path / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.Normalize"}]))
    (path / "1_Pooling").mkdir()
    modes = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (path / "1_Pooling" / "config.json").write_text(json.dumps(modes))
    (path / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    return path


def theirs(folder: Path, tokenizer: WordPieceTokenizer, text: str) -> torch.Tensor:
    model = transformers.AutoModel.from_pretrained(folder).eval()
    ids, _ = tokenizer.frame(tokenizer.encode(text)[:14])
    with torch.no_grad():
        hidden = model(torch.tensor([ids])).last_hidden_state
    return torch.nn.functional.normalize(hidden.mean(1), dim=-1)[0]


def test_vectors_equal_those_of_transformers(folder: Path, tokenizer: WordPieceTokenizer) -> None:
    model, loaded, _, _ = load_any(folder)
    vectors = embed(model, loaded, TEXTS, read_embedding(folder, model.config))
    for vector, text in zip(vectors, TEXTS, strict=True):
        torch.testing.assert_close(vector, theirs(folder, tokenizer, text), atol=1e-5, rtol=0)
    torch.testing.assert_close(vectors[1], vectors[4])


def test_the_command_prints_one_vector_a_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], refused
) -> None:
    (tmp_path / "lines.txt").write_text("the house\na cat sat\n")
    main(["embed", str(folder), "--text", str(tmp_path / "lines.txt")])
    vectors = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [len(vector) for vector in vectors] == [20, 20]
    assert sum(x * x for x in vectors[0]) == pytest.approx(1)
    odd = "the\fhouse\u2028a cat\r\na\x85cat\vsat\n"
    (tmp_path / "odd.txt").write_bytes(odd.encode())
    main(["embed", str(folder), "--text", str(tmp_path / "odd.txt")])
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert "groundup embed" in refused("score", folder, "--text", tmp_path / "lines.txt")
    assert "Name the text" in refused("embed", folder)
    assert "lines.text" in refused("embed", folder, "--text", tmp_path / "lines.text")


@pytest.mark.parametrize("kind", ["masked", "sequence", "token"])
def test_folders_keep_heads(kind: str, tmp_path: Path, tokenizer: WordPieceTokenizer) -> None:
    head = HeadConfig(kind=kind, num_classes=0 if kind == "masked" else 3)  # type: ignore[arg-type]
    config = bert(vocab_size=tokenizer.vocab_size, width=20, num_layers=1, num_heads=2, head=head)
    model = Encoder(config).eval()
    save_any(tmp_path / "m", model, tokenizer, {})
    loaded, again, _, _ = load_any(tmp_path / "m")
    ids = torch.randint(0, tokenizer.vocab_size, (2, 7))
    assert torch.equal(loaded(ids), model(ids)) and again.fingerprint == tokenizer.fingerprint
    (tmp_path / "m" / "groundup.json").unlink()
    assert torch.equal(load_any(tmp_path / "m")[0](ids), model(ids))


def test_folders_that_do_not_fit_are_refused(folder: Path) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-50])
    with pytest.raises(UserError, match="damaged or cut off"):
        load_any(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="does not exist"):
        load_any(folder)
    (folder / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(UserError, match="model_type = 'qwen3', but groundup.json 'encoder'"):
        load_any(folder)
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(UserError, match="pooling_mode_max_tokens"):
        read_embedding(folder, bert())


def test_without_instructions_the_configs_pooling_is_used(tmp_path: Path) -> None:
    expected = Embedding(pooling="first", normalize=False, max_tokens=512)
    assert read_embedding(tmp_path, bert()) == expected


@torch.no_grad()
def test_encoders_with_tokenizers_of_ours_embed_too(tmp_path, tiny_tokenizer, capsys) -> None:
    shape = {"width": 24, "num_layers": 2, "num_heads": 2, "context_length": 20}
    model = Encoder(modernbert(vocab_size=tiny_tokenizer.vocab_size, **shape)).eval()
    save_any(tmp_path / "m", model, tiny_tokenizer, {})
    (tmp_path / "lines.txt").write_text("the house\n" + "stone by stone " * 30)
    main(["embed", str(tmp_path / "m"), "--text", str(tmp_path / "lines.txt")])
    short, cut = (torch.tensor(json.loads(line)) for line in capsys.readouterr().out.splitlines())
    row = frame(tiny_tokenizer, tiny_tokenizer.encode("the house"))
    torch.testing.assert_close(short, model(torch.tensor([row])).mean(1)[0], atol=1e-5, rtol=0)
    row = frame(tiny_tokenizer, tiny_tokenizer.encode("stone by stone " * 30)[:18])
    torch.testing.assert_close(cut, model(torch.tensor([row])).mean(1)[0], atol=1e-5, rtol=0)
