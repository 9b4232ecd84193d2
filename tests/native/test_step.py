"""The native step against the decoder it was packed from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from groundup.config import UserError
from groundup.infer.generate import Reader
from groundup.infer.native import NativeReader, pack_decoder, refusal
from groundup.models.config import DecoderConfig
from groundup.models.decoder import Decoder
from groundup.models.presets import gpt2, llama, qwen3
from groundup.native.quantize import FORMATS, Format, pack, unpack
from groundup.nn.config import RopeScaling

SHAPE: dict[str, Any] = {"vocab_size": 131, "num_layers": 3, "context_length": 64}
QWEN3 = qwen3(**SHAPE, width=72, num_heads=6, num_kv_heads=2, head_width=20, feed_forward_width=100)
LLAMA = llama(**SHAPE, width=64, num_heads=4, feed_forward_width=160, tie_embeddings=False)
GPT2 = gpt2(**SHAPE, width=80, num_heads=5)
CONFIGS = {
    "qwen3": QWEN3,
    "llama": LLAMA,
    "gpt2": GPT2,
    "windows": replace(QWEN3, attention=replace(QWEN3.attention, windows=(5, 0, 17))),
    "interleaved": replace(LLAMA, positions=replace(LLAMA.positions, layout="interleaved")),
    "scaled": replace(
        LLAMA,
        positions=replace(
            LLAMA.positions, scaling=RopeScaling(kind="yarn", factor=4.0, original_context=16)
        ),
    ),
    "nowhere": replace(LLAMA, positions=replace(LLAMA.positions, kind="none")),
    "gelu": replace(LLAMA, feed_forward=replace(LLAMA.feed_forward, activation="gelu")),
    "relu2": replace(GPT2, feed_forward=replace(GPT2.feed_forward, activation="relu2")),
    "embedding": replace(LLAMA, embedding_scale=8.0, tie_embeddings=True, head_bias=True),
}


def build(config: DecoderConfig) -> Decoder:
    """A decoder whose every weight counts: norms, biases and all."""
    torch.manual_seed(1)
    model = Decoder(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def quantized(model: Decoder, format: Format) -> Decoder:
    """The decoder with the weights that `format` leaves of its own."""
    copy = Decoder(replace(model.config, tie_embeddings=False)).eval()
    copy.load_state_dict(model.state_dict() | {"head.weight": model.head_weight})
    with torch.no_grad():
        for module in copy.modules():
            if isinstance(module, nn.Linear):
                module.weight.copy_(unpack(pack(module.weight, format)))
        copy.embedding.weight.copy_(copy.embedding.weight.bfloat16())
    return copy


def read(model: Decoder, ids: Tensor, format: Format, pieces: list[int]) -> Tensor:
    """Logits (T, V) of the native step, which reads so many ids at a time, in scattered pages."""
    decoder = pack_decoder(model, format)
    cache = decoder.new_cache(9)
    table = torch.tensor([7, 2, 8, 0], dtype=torch.int32)
    found, start = [], 0
    for count in pieces:
        stop = start + count
        positions = torch.arange(start, stop, dtype=torch.int32)
        wanted = torch.arange(count, dtype=torch.int32)
        tables = table.repeat(count, 1)
        found.append(decoder.step(ids[start:stop], positions, tables, wanted, cache))
        start = stop
    return torch.cat(found)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_the_decoders(kernels: str, name: str, format: Format) -> None:
    model = build(CONFIGS[name])
    ids = torch.randint(131, (41,))
    with torch.no_grad():
        exact = quantized(model, format)(ids[None])[0]
    found = read(model, ids, format, [9, 1, 1, 20, 2, 8])
    # bf16 rounds activations to 8 bits, int8 and int4 to 7 bits of the largest of 64.
    limit = 0.015 if format == "bf16" else 0.04
    assert (found - exact).norm() <= limit * exact.norm()


@pytest.mark.parametrize("format", FORMATS)
def test_the_pieces_a_text_is_read_in_change_little(kernels: str, format: Format) -> None:
    model, ids = build(QWEN3), torch.randint(131, (40,))
    whole = read(model, ids, format, [40])
    for pieces in ([1] * 40, [3, 30, 7]):
        parts = read(model, ids, format, pieces)
        # Sums in another order; int4 in tiles leaves activations in bf16.
        limit = 0.03 if (kernels, format) == ("software", "int4") else 0.01
        assert (parts - whole).norm() <= limit * whole.norm()


def test_tokens_of_several_sequences_in_one_step(kernels: str) -> None:
    model = build(LLAMA)
    decoder = pack_decoder(model)
    cache, texts = decoder.new_cache(8), [torch.randint(131, (n,)) for n in (18, 5, 33)]
    tables = [torch.tensor(t, dtype=torch.int32) for t in ([0, 5, 0], [3, 0, 0], [6, 1, 2])]
    logits = decoder.step(
        torch.cat(texts),
        torch.cat([torch.arange(len(text), dtype=torch.int32) for text in texts]),
        torch.cat([table.repeat(len(text), 1) for table, text in zip(tables, texts, strict=True)]),
        torch.tensor([17, 22, 55], dtype=torch.int32),
        cache,
    )
    for row, text in zip(logits, texts, strict=True):
        with torch.no_grad():
            exact = model(text[None])[0, -1]
        assert (row - exact).norm() <= 0.015 * exact.norm()


def test_the_reader_predicts_as_the_other_reader(kernels: str) -> None:
    model = build(QWEN3)
    ours, theirs = NativeReader(pack_decoder(model), 64), Reader(model, 64)
    prompt = torch.randint(131, (20,)).tolist()
    asked = [
        [prompt],
        [[*prompt, 5]],
        [[*prompt, 5, n] for n in range(3)],  # one row is followed by three
        [[*prompt, 5, n, 7] for n in range(3)],
        [
            [*prompt[:9], 3, *prompt],
            [*prompt[:4], *prompt, 8, 9, 1, 2, 3, 4],
            [*prompt, *range(10)],
        ],
        [prompt[:2]],
    ]
    for rows in asked:
        found, exact = ours.next_logits(rows), theirs.next_logits(rows)
        assert (found - exact).norm() <= 0.015 * exact.norm(), len(rows)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"attention": replace(QWEN3.attention, soft_cap=30.0)}, "attention.soft_cap = 30.0"),
        ({"norm": replace(QWEN3.norm, placement="post")}, "norm.placement"),
        ({"logit_soft_cap": 15.0}, "logit_soft_cap"),
        ({"positions": replace(QWEN3.positions, fraction=0.5)}, "positions.fraction"),
    ],
)
def test_what_it_cannot_compute_is_refused_by_name(kernels: str, change: dict, named: str) -> None:
    config = replace(QWEN3, **change)
    assert named in refusal(config)
    with pytest.raises(UserError, match=named.split(" ")[0]):
        pack_decoder(Decoder(config))
