"""GGUF: round trips, what other readers see in our files, and files made to do harm."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from groundup.config import UserError
from groundup.models.decoder import Decoder
from groundup.models.gguf.container import READABLE, GGUFFile
from groundup.models.gguf.read import read_gguf
from groundup.models.gguf.write import write_gguf
from groundup.models.presets import llama, qwen3

SHAPE = {"width": 64, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "context_length": 48}


@pytest.fixture(params=["llama", "llama-untied", "qwen3"])
def model(request, tiny_tokenizer) -> Decoder:
    preset = qwen3 if request.param == "qwen3" else llama
    config = preset(
        vocab_size=tiny_tokenizer.vocab_size,
        **SHAPE,
        head_width=24,
        feed_forward_width=96,
        theta=500.0,
        tie_embeddings=request.param != "llama-untied",
    )
    if request.param == "llama":
        positions = dataclasses.replace(config.positions, layout="interleaved")
        config = dataclasses.replace(config, positions=positions)
    model = Decoder(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture
def path(tmp_path, tiny_tokenizer) -> Path:
    config = llama(vocab_size=tiny_tokenizer.vocab_size, **SHAPE)
    write_gguf(tmp_path / "m.gguf", Decoder(config), tiny_tokenizer)
    return tmp_path / "m.gguf"


def _rounded(model: Decoder) -> Decoder:
    copy = Decoder(model.config).eval()
    state = model.state_dict()
    copy.load_state_dict({k: v.half().float() if v.ndim > 1 else v for k, v in state.items()})
    return copy


def test_round_trip_in_f16_gives_equal_logits(model, tiny_tokenizer, tmp_path):
    write_gguf(tmp_path / "m.gguf", model, tiny_tokenizer)
    back, tokenizer, _ = read_gguf(tmp_path / "m.gguf")
    ids = torch.randint(0, 100, (2, 37), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(back(ids), _rounded(model)(ids), atol=2e-5, rtol=1e-5)
    if model.config.positions.layout == "half":
        assert back.config == dataclasses.replace(model.config, init_std=back.config.init_std)
        for name, tensor in _rounded(model).state_dict().items():
            assert torch.equal(back.state_dict()[name], tensor), name
    text = "So we'll build: 12 stones, «naïve» beams, 🙂."
    assert tokenizer.encode(text) == tiny_tokenizer.encode(text)
    assert tokenizer.fingerprint == tiny_tokenizer.fingerprint


def test_q8_0_is_close_and_smaller(model, tiny_tokenizer, tmp_path):
    write_gguf(tmp_path / "8.gguf", model, tiny_tokenizer, "q8_0")
    write_gguf(tmp_path / "16.gguf", model, tiny_tokenizer)
    assert (tmp_path / "8.gguf").stat().st_size < (tmp_path / "16.gguf").stat().st_size
    back, _, _ = read_gguf(tmp_path / "8.gguf")
    ours, theirs = model.embedding.weight, back.embedding.weight
    assert 0 < (ours - theirs).abs().max() < 0.01 * ours.abs().max()


def test_the_gguf_reader_sees_the_right_metadata(model, tiny_tokenizer, tmp_path):
    write_gguf(tmp_path / "m.gguf", model, tiny_tokenizer, name="mine")
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    arch = "qwen3" if model.config.attention.qk_norm else "llama"
    expected = {
        "general.architecture": arch,
        "general.name": "mine",
        f"{arch}.block_count": 2,
        f"{arch}.attention.head_count": 4,
        f"{arch}.attention.head_count_kv": 2,
        f"{arch}.attention.key_length": 24,
        f"{arch}.rope.freq_base": 500.0,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.eos_token_id": tiny_tokenizer.special["<|end|>"],
    }
    fields = {key: reader.get_field(key) for key in expected}
    assert {key: field and field.contents() for key, field in fields.items()} == expected
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert ("output.weight" in tensors) == (not model.config.tie_embeddings)
    query = tensors["blk.1.attn_q.weight"]
    assert query.tensor_type.name == "F16" and list(query.shape) == [64, 96]


@pytest.mark.parametrize("kind", READABLE)
def test_every_format_reads_as_the_gguf_package_does(kind, tmp_path):
    kind = gguf.GGMLQuantizationType[kind]
    size = gguf.GGML_QUANT_SIZES[kind][1]
    random = np.random.default_rng(0)
    if kind.name in ("F32", "F16"):
        values = random.standard_normal((3, 64)).astype("f4" if kind.name == "F32" else "f2")
        raw = values
    else:
        raw = random.integers(0, 60, (3, 2 * size), dtype=np.uint8)  # small: no infinities
        values = gguf.quants.dequantize(raw, kind)
    writer = gguf.GGUFWriter(tmp_path / "t.gguf", "llama")
    writer.add_tensor("a", np.ones(5, dtype=np.float32))
    writer.add_tensor("w", raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GGUFFile(tmp_path / "t.gguf")
    assert file.tensors["w"].kind == kind.name
    np.testing.assert_array_equal(file.read("w"), values.astype(np.float32))
    np.testing.assert_array_equal(file.read("a"), np.ones(5))


@pytest.mark.parametrize("keep", [0, 3, 20, 24, 100, 5_000, -1])
def test_a_file_cut_off_anywhere_is_refused(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="too short|cut off"):
        read_gguf(path)


def _patched(path: Path, key: bytes, skip: int, form: str, value: int) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(key) + len(key) + skip
    struct.pack_into(form, data, at, value)
    path.write_bytes(data)


HUGE = (1 << 63) - 1


@pytest.mark.parametrize(
    ("key", "skip", "form", "value", "message"),
    [
        (b"GGUF", 0, "<I", 77, "version 77"),
        (b"GGUF", 4, "<Q", HUGE, "tensor_count .* absurd"),
        (b"GGUF", 12, "<Q", HUGE, "kv_count .* absurd"),
        (b"general.architecture", 4, "<Q", HUGE, "cut off or damaged at byte"),
        (b"tokenizer.ggml.tokens", 8, "<Q", HUGE, "'tokenizer.ggml.tokens' should take"),
        (b"tokenizer.ggml.token_type", 8, "<Q", HUGE, "'tokenizer.ggml.token_type' should take"),
        (b"tokenizer.ggml.tokens", 4, "<I", 9, "unknown type 9"),
        (b"llama.block_count", 0, "<I", 99, "unknown type 99"),
        (b"llama.block_count", 4, "<I", 2**31, "llama.block_count 2,147,483,648"),
        (b"llama.context_length", 4, "<I", 2**31, "llama.context_length .* absurd"),
        (b"llama.attention.head_count", 4, "<I", 0, "llama.attention.head_count should"),
        (b"llama.feed_forward_length", 4, "<I", 2**31, "of shape"),
        (b"blk.1.attn_q.weight", 0, "<I", 9, "'blk.1.attn_q.weight' has 9 dimensions"),
        (b"blk.1.attn_q.weight", 4, "<Q", HUGE, "'blk.1.attn_q.weight'"),
        (b"blk.1.attn_q.weight", 4, "<Q", 0, "'blk.1.attn_q.weight' of shape"),
        (b"blk.1.attn_q.weight", 20, "<I", 10, "in format Q2_K"),
        (b"blk.1.attn_q.weight", 20, "<I", 999, "in format number 999"),
        (b"blk.1.attn_q.weight", 24, "<Q", HUGE, "'blk.1.attn_q.weight' should end at byte"),
        (b"blk.1.attn_q.weight", 24, "<Q", 0, "weight' begins at byte .*, inside '"),
        (b"blk.1.attn_q.weight", -3, "3s", b"xxx", "lacks 'blk.1.attn_q.weight'"),
        (b"general.architecture", 12, "5s", b"mamba", "Unknown architecture"),
        (b"tokenizer.ggml.pre", 12, "3s", b"zzz", "tokenizer.ggml.pre"),
        (b"tokenizer.ggml.bos_token_id", 4, "<I", 2**31, "tokenizer.ggml.bos_token_id"),
    ],
)
def test_absurd_numbers_are_refused_by_name(path, key, skip, form, value, message):
    _patched(path, key, skip, form, value)
    with pytest.raises(UserError, match=message):
        read_gguf(path)


def test_another_file_is_refused(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"cos\nsystem\n(S'false'\ntR." * 9)
    with pytest.raises(UserError, match="not a GGUF file"):
        read_gguf(tmp_path / "x.gguf")


def test_the_missing_package_is_named(path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(UserError, match=r"needs gguf: run `pip install 'groundup\[hf\]'`"):
        read_gguf(path)
