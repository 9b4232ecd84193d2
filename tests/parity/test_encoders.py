"""ModernBERT and ALBERT against transformers: outputs, gradients, padding, folders both ways."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from groundup.config import UserError
from groundup.models.adapters import albert as albert_layout
from groundup.models.adapters import modernbert as modernbert_layout
from groundup.models.encoder import Encoder
from groundup.models.encoder_config import EncoderConfig, HeadConfig, albert, bert, modernbert
from groundup.models.folder import load_any, save_any
from groundup.models.kinds import layout_for
from parity.harness import Pair, Weights, compare, module_function, random_weights

VOCABULARY, LENGTH = 131, 37
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "width": 42,
    "num_layers": 5,
    "num_heads": 3,
    "context_length": 53,
    "feed_forward_width": 70,
}
HEADS = {
    "": None,
    "-masked": HeadConfig(kind="masked"),
    "-sequence": HeadConfig(kind="sequence", num_classes=5),
    "-token": HeadConfig(kind="token", num_classes=3),
}
WINDOWED = {name: modernbert(**SIZES, head=head, window=5) for name, head in HEADS.items()}
_BIASED = WINDOWED["-sequence"]
CONFIGS: dict[str, EncoderConfig] = {
    **{f"modernbert{name}": config for name, config in WINDOWED.items()},
    "modernbert-biased": replace(
        _BIASED,
        attention=replace(_BIASED.attention, qkv_bias=True, out_bias=True, windows=(3, 0)),
        feed_forward=replace(_BIASED.feed_forward, bias=True, activation="silu"),
        norm=replace(_BIASED.norm, bias=True),
        head=HeadConfig(kind="sequence", num_classes=5, transform=True),
        pooling="first",
    ),
    "modernbert-without-windows": replace(
        WINDOWED["-masked"],
        attention=replace(_BIASED.attention, windows=()),
        positions=replace(_BIASED.positions, window_theta=None),
    ),
    **{
        f"albert{name}": albert(**SIZES, embedding_width=19, head=head)
        for name, head in HEADS.items()
    },
    "albert-two-groups": replace(albert(**SIZES, embedding_width=42), distinct_layers=2),
}


def pair(config: EncoderConfig) -> Pair:
    layout, fields = layout_for(config)
    assert layout is not None
    ours, lengths = Encoder(config).eval(), torch.tensor([LENGTH, 11, 1] * 4)
    visible = torch.arange(LENGTH) < lengths[:, None]
    theirs = _theirs(fields)
    # Without a head, a summary of the text is compared beside the vectors, where they have one.
    summed = config.head is None and config.pooler

    def expected(model: nn.Module, ids: Tensor) -> Tensor:
        found = model(ids, attention_mask=visible.long())
        if config.head is not None:
            return _kept(found.logits, visible)
        hidden = _kept(found.last_hidden_state, visible).flatten()
        return torch.cat((hidden, found.pooler_output.flatten())) if summed else hidden

    def mine(model: Encoder, ids: Tensor) -> Tensor:
        if config.head is not None:
            return _kept(model(ids, visible), visible)
        found = model.hidden(ids, visible)
        hidden = _kept(found, visible).flatten()
        return torch.cat((hidden, model.summary(found, visible).flatten())) if summed else hidden

    def translate(weights: Weights) -> Weights:
        return layout.to_hf_state(config, weights) | _tied(layout.to_hf_state(config, weights))

    return Pair(
        ours=module_function(ours, call=mine),
        theirs=module_function(theirs, translate, expected),
        weights=random_weights(ours),
        inputs=(torch.randint(0, VOCABULARY, visible.shape),),
    )


def _theirs(fields: dict[str, Any]) -> Any:
    config = transformers.AutoConfig.for_model(**fields)
    return getattr(transformers, fields["architectures"][0])(config).eval()


def _kept(output: Tensor, visible: Tensor) -> Tensor:
    """What is said of padding is nobody's concern."""
    return output * visible[:, :, None] if output.ndim == 3 else output


def _tied(state: Weights) -> Weights:
    """ALBERT's masked head holds its bias twice."""
    bias = state.get("predictions.bias")
    return {} if bias is None else {"predictions.decoder.bias": bias}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_and_gradients_equal_those_of_transformers(name: str, dtype: str) -> None:
    torch.manual_seed(zlib.crc32(name.encode()))
    compare(pair(CONFIGS[name]), dtype).check()


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
    plain, windowed = bert(**SIZES), WINDOWED["-masked"]
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
