"""The summary's numbers against a count by hand."""

from __future__ import annotations

from groundup.models.decoder import Decoder
from groundup.models.presets import gpt2, qwen3
from groundup.models.summary import rows, table, totals


def test_rows_group_equal_layers_and_sum_to_the_model():
    config = qwen3(
        vocab_size=131, width=48, num_layers=3, num_heads=4, num_kv_heads=2, head_width=10,
        feed_forward_width=70, context_length=64, tie_embeddings=False,
    )  # fmt: skip
    model = Decoder(config)
    listed = {row.name: row for row in rows(model)}
    query = listed["blocks.*.attention.query.weight"]
    assert (query.shape, query.count, query.parameters) == ((40, 48), 3, 3 * 40 * 48)
    assert sum(row.parameters for row in listed.values()) == model.num_parameters()

    layer = 48 * 80 + 40 * 48 + 3 * 48 * 70 + 2 * 48 + 2 * 10
    sums = totals(model)
    assert sums.parameters == 2 * 131 * 48 + 3 * layer + 48
    assert sums.num_bytes == 4 * sums.parameters
    assert sums.cache_bytes_per_token == 2 * 3 * 2 * 10 * 4
    assert not sums.head_is_tied
    assert totals(model.bfloat16()).num_bytes == 2 * sums.parameters


def test_gpt2_small_has_its_published_size():
    import torch

    with torch.device("meta"):
        model = Decoder(
            gpt2(vocab_size=50257, width=768, num_layers=12, num_heads=12, context_length=1024)
        )
    assert model.num_parameters() == 124_439_808
    assert model.flops_per_token(1024) == 6 * (12 * 12 * 768**2 + 50257 * 768 + 12 * 1024 * 768)


def test_the_table_reads():
    model = Decoder(gpt2(vocab_size=11, width=8, num_layers=2, num_heads=2, context_length=6))
    text = table(model)
    lines = text.splitlines()
    assert lines[0].split() == ["parameter", "shape", "layers", "parameters", "bytes"]
    assert any(
        line.split()[:5] == ["blocks.*.feed_forward.up.weight", "32", "×", "8", "2"]
        for line in lines
    )
    assert f"{model.num_parameters():,}" in text
    assert "tied to the embedding" in text
