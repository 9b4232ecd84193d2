"""The table of sizes: counts that are published, parts that add up, and how they grow."""

from __future__ import annotations

import pytest

from groundup.inspect import sizes
from groundup.inspect.sizes import MODELS, PARTS, all_sizes, picture, table
from groundup.models.decoder import Decoder
from groundup.models.dial import from_depth

# What transformers reports for these checkpoints; GPT-3's paper says 175.0 billion.
PUBLISHED = {
    "MiniLM-L6": 22_713_216,
    "T5-small": 60_506_624,
    "T5-base": 222_903_552,
    "BERT-base": 109_482_240,
    "BERT-large": 335_141_888,
    "GPT-2": 124_439_808,
    "GPT-2 XL": 1_557_611_200,
    "SmolLM2-135M": 134_515_008,
    "Qwen3-0.6B": 596_049_920,
    "Llama 2 7B": 6_738_415_616,
    "Mixtral 8x7B": 46_702_792_704,
}


@pytest.fixture(scope="module")
def counted():
    return all_sizes()


def test_counts_are_the_published_ones(counted):
    found = {size.name: size.parameters for size in counted}
    assert {name: found[name] for name in PUBLISHED} == PUBLISHED
    assert found["GPT-3"] == pytest.approx(175e9, rel=0.003)


def test_parts_are_those_of_a_real_model(counted):
    ours = next(size for size in counted if size.name == "ours, size 2")
    model = Decoder(from_depth(2, vocab_size=4096).model)
    assert ours.parameters == model.num_parameters()
    assert ours.parts["tables"] == model.embedding.weight.numel()
    assert ours.parts["feed-forward"] == sum(
        p.numel() for name, p in model.named_parameters() if ".feed_forward." in name
    )
    for size in counted:
        assert tuple(size.parts) == PARTS and size.parts["rest"] < 0.01 * size.parameters


def test_smallest_first_and_a_line_and_a_bar_each(counted):
    totals = [size.parameters for size in counted]
    assert totals == sorted(totals) and len(totals) == len(MODELS)
    groups = [size.group for size in counted]
    assert groups == sorted(groups, key=["small", "medium", "large"].index)
    lines = table(counted).splitlines()
    assert [line.split("  ")[0] for line in lines[1 : len(MODELS) + 1]] == [s.name for s in counted]
    (axes,) = picture(counted).axes
    assert len(axes.patches) == 3 * len(MODELS)


def test_the_topic_saves_and_tells(counted, monkeypatch, tmp_path):
    monkeypatch.setattr(sizes, "all_sizes", lambda: counted)
    assert "GPT-3" in sizes.show(tmp_path / "sizes.png")
    assert (tmp_path / "sizes.png").stat().st_size > 5000
