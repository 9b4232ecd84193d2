"""GGUF of every family: there and back with equal logits, refusals by name, and llama.cpp's own."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import TEXT
from tokenizers import AddedToken, models, normalizers, trainers
from tokenizers import Tokenizer as Library

from groundup.config import UserError
from groundup.models import presets
from groundup.models.config import DecoderConfig, RopeScaling
from groundup.models.decoder import Decoder
from groundup.models.export import export
from groundup.models.folder import load_model, save_model
from groundup.models.gguf.container import GGUFFile
from groundup.models.gguf.read import read_gguf
from groundup.models.gguf.sentencepiece import to_json
from groundup.models.gguf.write import write_gguf
from groundup.models.pull import pull
from groundup.text.chat import render
from groundup.text.library import LibraryTokenizer
from groundup.text.tokenizer import Tokenizer

SHAPE: dict[str, Any] = {"width": 64, "num_layers": 2, "num_heads": 4, "context_length": 96}
EVEN: dict[str, Any] = {**SHAPE, "num_kv_heads": 2, "feed_forward_width": 96}
WIDE: dict[str, Any] = {**EVEN, "head_width": 24}


def _scaled(config: DecoderConfig, **scaling: Any) -> DecoderConfig:
    return replace(config, positions=replace(config.positions, scaling=RopeScaling(**scaling)))


FAMILIES: dict[str, Callable[[int], DecoderConfig]] = {
    "gpt2": lambda size: presets.gpt2(vocab_size=size, **SHAPE),
    "gpt2-untied": lambda size: presets.gpt2(vocab_size=size, **SHAPE, tie_embeddings=False),
    "llama": lambda size: presets.llama(vocab_size=size, **WIDE),
    "llama3": lambda size: presets.llama3(vocab_size=size, original_context=24, **WIDE),
    "linear": lambda size: _scaled(
        presets.llama(vocab_size=size, **WIDE), kind="linear", factor=4.0
    ),
    "yarn": lambda size: _scaled(
        presets.qwen2(vocab_size=size, **EVEN), kind="yarn", factor=4.0, original_context=24
    ),
    "ntk": lambda size: _scaled(presets.qwen3(vocab_size=size, **WIDE), kind="ntk", factor=4.0),
    "mistral": lambda size: presets.mistral(vocab_size=size, window=96, **WIDE),
    "qwen2": lambda size: presets.qwen2(vocab_size=size, **EVEN),
    "qwen3": lambda size: presets.qwen3(vocab_size=size, **WIDE),
    "gemma": lambda size: presets.gemma(vocab_size=size, **WIDE),
}


def _model(config: DecoderConfig) -> Decoder:
    """Random, with weights that F16 holds exactly and that no part of is near its neutral value."""
    model = Decoder(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
            if parameter.ndim > 1:
                parameter.copy_(parameter.half().float())
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_there_and_back_in_f16(family: str, tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = _model(FAMILIES[family](tiny_tokenizer.vocab_size))
    write_gguf(tmp_path / "m.gguf", model, tiny_tokenizer)
    back, _, _ = read_gguf(tmp_path / "m.gguf")
    ids = torch.randint(0, 100, (2, 61))
    with torch.no_grad():
        torch.testing.assert_close(back(ids), model(ids), atol=2e-5, rtol=1e-5)
    write_gguf(tmp_path / "again.gguf", back, tiny_tokenizer, name="m")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "m.gguf").read_bytes()
    write_gguf(tmp_path / "8.gguf", model, tiny_tokenizer, "q8_0")
    close, _, _ = read_gguf(tmp_path / "8.gguf")
    with torch.no_grad():
        assert F.cosine_similarity(close(ids), model(ids), dim=-1).min() > 0.98


def test_the_names_are_llama_cpps(tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    for family, arch in (("gpt2", "GPT2"), ("gemma", "GEMMA"), ("llama3", "LLAMA")):
        model = _model(FAMILIES[family](tiny_tokenizer.vocab_size))
        write_gguf(tmp_path / f"{family}.gguf", model, tiny_tokenizer)
        file = GGUFFile(tmp_path / f"{family}.gguf")
        assert file.metadata["general.architecture"] == arch.lower()
        known = gguf.MODEL_TENSORS[getattr(gguf.MODEL_ARCH, arch)]
        stems = {gguf.TENSOR_NAMES[tensor].replace("{bid}", "1") for tensor in known}
        assert {name.rpartition(".")[0].replace("blk.0", "blk.1") for name in file.tensors} <= stems


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (presets.mistral(vocab_size=320, window=32, **WIDE), "sliding window .* 32 of 96"),
        (presets.pythia(vocab_size=320, **SHAPE), "gpt_neox model cannot be written as GGUF here"),
        (presets.gemma2(vocab_size=320, **WIDE), "gemma2 model cannot be written"),
        (presets.qwen2(vocab_size=320, **WIDE), "4 of 24 are not 64"),
        (replace(presets.gemma(vocab_size=320, **WIDE), tie_embeddings=False), "head of its own"),
        (
            replace(
                presets.llama(vocab_size=320, **WIDE),
                feed_forward=replace(
                    presets.llama(vocab_size=320, **WIDE).feed_forward, activation="relu"
                ),
            ),
            "llama with silu, but this model has relu",
        ),
        (
            _scaled(
                presets.llama(vocab_size=320, **WIDE),
                kind="yarn", factor=2.0, original_context=9, attention_factor=3.0,
            ),
            "YaRN with its authors' constants",
        ),
    ],
)  # fmt: skip
def test_what_llama_cpp_does_not_compute_is_refused(
    config: DecoderConfig, message: str, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        write_gguf(tmp_path / "m.gguf", Decoder(config), tiny_tokenizer)
    assert not list(tmp_path.iterdir())


def _patched(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert len(old) == len(new) and data.count(old) == 1
    path.write_bytes(data.replace(old, new))


def test_another_rule_behind_the_factors_is_refused(
    tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "m.gguf"
    config = presets.llama3(vocab_size=tiny_tokenizer.vocab_size, **WIDE)
    write_gguf(path, Decoder(config), tiny_tokenizer)
    _patched(path, b"groundup.rope_scaling", b"somebody.rope_scaling")  # as if made elsewhere
    assert read_gguf(path)[0].config.positions.scaling == config.positions.scaling
    file = GGUFFile(path)
    at = file.tensors["rope_freqs.weight"].start
    data = bytearray(path.read_bytes())
    data[at : at + 4] = np.float32(math.pi).tobytes()
    path.write_bytes(data)
    with pytest.raises(UserError, match="'rope_freqs.weight' scales RoPE by another rule"):
        read_gguf(path)
    _patched(path, b"somebody.rope_scaling", b"groundup.rope_scaling")
    _patched(path, b'"kind"', b'"kins"')
    with pytest.raises(UserError, match="kins"):
        read_gguf(path)


@pytest.fixture(scope="session")
def spm() -> LibraryTokenizer:
    """A SentencePiece tokenizer of 400 ids, with every way to join two pieces into a third."""
    library = Library(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    library.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    names = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=names, show_progress=False)
    library.train_from_iterator([word for line in [TEXT] * 3 for word in line.split()], trainer)
    library.add_tokens([AddedToken("<tab>", normalized=False), AddedToken("▁▁", normalized=False)])
    vocab = sorted(library.get_vocab().items(), key=lambda item: item[1])
    tokens = [token for token, _ in vocab]
    kinds = [2, 3, 3, *[6] * 256, *[1] * (len(tokens) - 261), 4, 4]
    scores = [-float(id) for _, id in vocab]
    data = to_json(tokens, kinds, scores, space_first=True)
    tokenizer = LibraryTokenizer(data, config={"bos_token": "<s>", "eos_token": "</s>"})
    return tokenizer.with_chat(None, "<s>")


SENTENCES = [
    "",
    " ",
    "the stones",
    "  two  spaces ",
    "naïve 日本 🙂\n\n",
    "<s> is <tab> text</s>",
    TEXT,
]


def test_a_sentencepiece_vocabulary_keeps_its_ids(spm: LibraryTokenizer, tmp_path: Path) -> None:
    model = _model(presets.llama(vocab_size=spm.vocab_size + 3, **WIDE))
    write_gguf(tmp_path / "m.gguf", model, spm)
    _, back, config = read_gguf(tmp_path / "m.gguf")
    assert (config["bos_token"], "eos_token" in config) == ("<s>", False)
    for text in SENTENCES:
        assert back.encode(text) == spm.encode(text)
        if "<tab>" not in text:  # what follows it is encoded as if a space stood before
            assert back.decode(back.encode(text)) == text
    assert spm.token_bytes()[spm.encode("a  b")].max() == 2  # two spaces are one token
    assert spm.special["<s>"] == 1 and len(spm.encode("the stones")) < 8
    metadata = GGUFFile(tmp_path / "m.gguf").metadata
    assert metadata["tokenizer.ggml.model"] == "llama"
    assert metadata["tokenizer.ggml.token_type"][-3:] == [5, 5, 5]


TURNS = """\
{% for m in messages %}\
{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}\
{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"""


def test_it_chats_alike_from_a_folder_and_from_a_file(
    spm: LibraryTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    model = _model(presets.llama(vocab_size=spm.vocab_size, **WIDE))
    save_model(tmp_path / "theirs", model, spm.with_chat(None, ""), {})
    (tmp_path / "theirs" / "groundup.json").unlink()
    config = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": TURNS}
    (tmp_path / "theirs" / "tokenizer_config.json").write_text(json.dumps(config))
    first, notes = pull(str(tmp_path / "theirs"), "first")
    assert notes == []
    file = export("first", "gguf", tmp_path / "m.gguf")
    folders = [first, *(pull(str(source), source.stem)[0] for source in (first, file))]
    turns: list[Any] = [{"role": "user", "content": "the <s> stones?"}]
    asked = {tuple(render(load_model(f)[1], turns, reply=True).ids) for f in folders}
    assert len(asked) == 1 and min(asked).count(1) == 1
    name = "tokenizer.json"
    assert (first / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()


def test_a_vocabulary_that_llama_cpp_would_read_otherwise_is_refused(
    spm: LibraryTokenizer, tmp_path: Path
) -> None:
    data = json.loads(json.dumps(spm.data))
    gone = next(pair for pair in data["model"]["merges"] if len("".join(pair)) > 3)
    data["model"]["merges"].remove(gone)
    model = Decoder(presets.llama(vocab_size=spm.vocab_size, **WIDE))
    with pytest.raises(UserError, match="not made by SentencePiece"):
        write_gguf(tmp_path / "m.gguf", model, LibraryTokenizer(data))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llama_cpp") is None, reason="llama_cpp is missing")
@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_computes_the_same(
    family: str, tiny_tokenizer: Tokenizer, spm: LibraryTokenizer, tmp_path: Path
) -> None:
    llama_cpp = pytest.importorskip("llama_cpp")
    tokenizer = spm if family in ("mistral", "gemma") else tiny_tokenizer
    model = _model(FAMILIES[family](tokenizer.vocab_size))
    write_gguf(tmp_path / "m.gguf", model, tokenizer)
    theirs = llama_cpp.Llama(
        str(tmp_path / "m.gguf"), n_ctx=96, logits_all=True, verbose=False, n_threads=1
    )
    for text in SENTENCES[1:]:
        found = theirs.tokenize(text.encode(), add_bos=False, special=False)
        assert found == tokenizer.encode(text), text
    ids = tokenizer.encode(TEXT)[:80]
    theirs.eval(ids)
    with torch.no_grad():
        expected = model(torch.tensor([ids]))[0]
    logits = torch.from_numpy(np.array(theirs.scores[: len(ids)]))
    assert F.cosine_similarity(logits, expected, dim=-1).min() > 0.999
    targets = torch.tensor(ids[1:])
    both = [F.cross_entropy(one[:-1], targets).item() for one in (logits, expected)]
    assert abs(both[0] - both[1]) < 0.01, both
