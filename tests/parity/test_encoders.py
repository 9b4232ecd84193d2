"""ModernBERT and ALBERT: configs and folders to transformers and back, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from groundup.config import UserError
from groundup.models.adapters import albert as albert_layout
from groundup.models.adapters import modernbert as modernbert_layout
from groundup.models.encoder import Encoder
from groundup.models.encoder_config import HeadConfig, albert, bert, modernbert
from groundup.models.folder import load_any, save_any
from groundup.models.kinds import layout_for
from parity.zoo import ENCODERS, VOCABULARY

LENGTH = 37
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "width": 42,
    "num_layers": 5,
    "num_heads": 3,
    "context_length": 53,
    "feed_forward_width": 70,
}
CONFIGS = {name: ENCODERS[name] for name in ENCODERS if not name.startswith("bert")}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_and_folders_go_there_and_back(name: str, tmp_path: Path) -> None:
    config = CONFIGS[name]
    layout, fields = layout_for(config)
    assert layout is not None and layout.from_hf_config(fields) == config
    model = Encoder(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    save_any(tmp_path / "ours", model, None, {})
    loaded = load_any(tmp_path / "ours")
    assert loaded.model.config == config
    for key, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], tensor), key
    # transformers reads what we wrote, and we read what it writes.
    architecture = getattr(transformers, fields["architectures"][0])
    theirs, report = architecture.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    theirs.save_pretrained(tmp_path / "theirs")
    back = load_any(tmp_path / "theirs").model
    ids = torch.randint(0, VOCABULARY, (2, LENGTH))
    with torch.no_grad():
        torch.testing.assert_close(back(ids), model(ids), atol=1e-6, rtol=1e-6)


def test_the_published_sizes() -> None:
    base: dict[str, Any] = {
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    }
    with torch.device("meta"):
        pairs = (
            (albert(), transformers.AlbertModel(transformers.AlbertConfig(**base))),
            (
                modernbert(head=HeadConfig(kind="masked")),
                transformers.ModernBertForMaskedLM(transformers.ModernBertConfig()),
            ),
        )
        for config, theirs in pairs:
            expected = sum(parameter.numel() for parameter in theirs.parameters())
            assert Encoder(config).num_parameters() == expected


def test_shared_layers_count_once() -> None:
    shared = albert(**SIZES)
    block = Encoder(bert(**SIZES)).blocks[0]
    size = sum(parameter.numel() for parameter in block.parameters())
    apart = replace(shared, distinct_layers=0)
    assert Encoder(apart).num_parameters() - Encoder(shared).num_parameters() == 4 * size


def test_older_files_of_modernbert_say_less() -> None:
    """The fields of the published answerdotai/ModernBERT-base that transformers 5 renamed."""
    fields = {
        **{"model_type": "modernbert", "architectures": ["ModernBertForMaskedLM"]},
        **{"vocab_size": 50368, "hidden_size": 768, "intermediate_size": 1152},
        **{"num_hidden_layers": 22, "num_attention_heads": 12, "max_position_embeddings": 8192},
        **{"global_attn_every_n_layers": 3, "local_attention": 128, "norm_bias": False},
        **{"global_rope_theta": 160000.0, "local_rope_theta": 10000.0, "norm_eps": 1e-05},
        **{"classifier_pooling": "mean", "position_embedding_type": "absolute"},
    }
    assert modernbert_layout.from_hf_config(fields) == modernbert(head=HeadConfig(kind="masked"))


@pytest.mark.parametrize(
    ("name", "changes", "field"),
    [
        ("modernbert", {"decoder_bias": False}, "decoder_bias"),
        ("modernbert", {"classifier_activation": "relu"}, "classifier_activation"),
        ("modernbert", {"layer_types": ["full_attention"]}, "layer_types"),
        ("albert", {"inner_group_num": 2}, "inner_group_num"),
        ("albert", {"num_hidden_groups": "1"}, "num_hidden_groups"),
    ],
)
def test_what_we_cannot_express_is_refused_by_name(name: str, changes: dict, field: str) -> None:
    layout, fields = layout_for(CONFIGS[name])
    assert layout is not None
    with pytest.raises(UserError, match=field):
        layout.from_hf_config(fields | changes)


def test_what_they_have_no_class_for_is_refused_by_name() -> None:
    plain, windowed = bert(**SIZES), CONFIGS["modernbert-masked"]
    for config, field in (
        (replace(windowed, first_norm=True), "first_norm"),
        (replace(windowed, num_types=2), "num_types"),
        (replace(windowed, distinct_layers=1), "distinct_layers"),
        (replace(windowed, attention=replace(windowed.attention, windows=(3, 5))), "windows"),
    ):
        with pytest.raises(UserError, match=field):
            modernbert_layout.to_hf_config(config)
    with pytest.raises(UserError, match="embedding_width"):
        albert_layout.to_hf_config(plain)
    assert layout_for(replace(plain, distinct_layers=2)) == (None, {})


def test_a_window_bounds_what_is_seen() -> None:
    config = replace(modernbert(**SIZES, window=4), num_layers=2, pooling="first")
    config = replace(config, attention=replace(config.attention, windows=(4,)))
    model = Encoder(config).eval()
    ids = torch.randint(0, VOCABULARY, (1, LENGTH))
    changed = ids.clone()
    changed[0, 15] = (changed[0, 15] + 1) % VOCABULARY
    with torch.no_grad():
        moved = (model(ids) != model(changed)).any(-1)[0]
    # Two layers hand on what each sees: 3 tokens on either side, twice.
    assert moved[9:22].all() and not moved[:9].any() and not moved[22:].any()
