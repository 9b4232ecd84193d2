"""T5 and its version 1.1: relative positions, RMSNorm, no biases, tensor for tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from groundup.config import UserError, require
from groundup.models.adapters.base import plain_attention, whole_number
from groundup.models.encoder_decoder_config import EncoderDecoderConfig
from groundup.nn.config import AttentionConfig, FeedForwardConfig, NormConfig, PositionsConfig

ARCHITECTURE = "T5ForConditionalGeneration"
_FEED_FORWARDS = {
    "relu": ("plain", "relu"),
    "gated-gelu": ("gated", "gelu_tanh"),
    "gated-silu": ("gated", "silu"),
    "gelu": ("plain", "gelu"),
}


def to_hf_config(config: EncoderDecoderConfig) -> dict[str, Any]:
    """The `config.json` of the equal T5. Raises UserError, naming the field, when there is none."""
    _check(config)
    network, positions = config.feed_forward, config.positions
    kinds = {ours: theirs for theirs, ours in _FEED_FORWARDS.items()}
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "vocab_size": config.vocab_size,
        "d_model": config.width,
        "d_kv": config.attention.head_width,
        "d_ff": network.width,
        "num_layers": config.num_encoder_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "num_heads": config.attention.num_heads,
        "relative_attention_num_buckets": positions.num_buckets,
        "relative_attention_max_distance": positions.max_distance,
        "n_positions": config.context_length,
        "dropout_rate": network.dropout,
        "layer_norm_epsilon": config.norm.eps,
        "feed_forward_proj": kinds[network.kind, network.activation],
        # transformers reads from this whether the head is scaled, too.
        "tie_word_embeddings": config.tie_embeddings,
        "decoder_start_token_id": config.start_id,
        "pad_token_id": config.start_id,
        "eos_token_id": 1,
    }


def from_hf_config(data: Mapping[str, Any]) -> EncoderDecoderConfig:
    """Our config from a parsed `config.json`. Raises UserError naming what we cannot express."""
    require(
        data.get("model_type") == "t5",
        f"Not a T5: config.json says model_type = {data.get('model_type')!r}.",
    )
    kind = data.get("feed_forward_proj", "relu")
    if kind not in _FEED_FORWARDS:
        raise UserError(f"config.json: feed_forward_proj = {kind!r} is not supported.")
    width, num_layers = whole_number(data, "d_model"), whole_number(data, "num_layers")
    # Version 1.1 neither ties nor scales. Older files say so by the first field, newer by both.
    tied = data.get("scale_decoder_outputs", data.get("tie_word_embeddings") is not False)
    dropout = float(data.get("dropout_rate", 0.1))
    shape, activation = _FEED_FORWARDS[kind]
    return EncoderDecoderConfig(
        vocab_size=whole_number(data, "vocab_size"),
        width=width,
        num_encoder_layers=num_layers,
        num_decoder_layers=data.get("num_decoder_layers") or num_layers,
        context_length=int(data.get("n_positions", 512)),
        attention=AttentionConfig(
            num_heads=whole_number(data, "num_heads"),
            num_kv_heads=whole_number(data, "num_heads"),
            head_width=whole_number(data, "d_kv"),
            scale=1.0,
            dropout=dropout,
            out_dropout=dropout,
        ),
        feed_forward=FeedForwardConfig(
            kind=shape,  # type: ignore[arg-type]
            activation=activation,  # type: ignore[arg-type]
            width=whole_number(data, "d_ff"),
            dropout=dropout,
        ),
        norm=NormConfig(kind="rmsnorm", eps=float(data.get("layer_norm_epsilon", 1e-6))),
        positions=PositionsConfig(
            kind="t5",
            num_buckets=int(data.get("relative_attention_num_buckets", 32)),
            max_distance=int(data.get("relative_attention_max_distance", 128)),
        ),
        start_id=int(data.get("decoder_start_token_id") or 0),
        tie_embeddings=tied,
        head_scale=width**-0.5 if tied else 1.0,
        embedding_dropout=dropout,
        embedding_std=1.0,
        init_std=width**-0.5,
    )


def with_its_scales(
    config: EncoderDecoderConfig, state: Mapping[str, Tensor]
) -> tuple[EncoderDecoderConfig, dict[str, Tensor]]:
    """The equal model whose scores and outputs are scaled as T5's, by other weights.

    T5 divides no scores by √E, so the queries have to; the last norm takes the head's scale.
    Raises UserError, naming the field, for what no scale can make a T5 of.
    """
    equal = replace(
        config,
        attention=replace(config.attention, scale=1.0),
        head_scale=_head_scale(config),
        embedding_std=1.0,  # these two say how weights are drawn, and this is all T5 says of it
        init_std=config.width**-0.5,
    )
    _check(equal)
    scale = config.attention.scale
    of_scores = config.attention.head_width**-0.5 if scale is None else scale
    factors = {"decoder.final_norm.weight": config.head_scale / equal.head_scale}
    factors |= {name: of_scores for name in state if name.endswith(".query.weight")}
    return equal, {name: value * factors.get(name, 1.0) for name, value in state.items()}


def to_hf_state(config: EncoderDecoderConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict under transformers' names; what is tied there is written once."""
    _check(config)
    names = _names(config)
    return {_rename(name, names): tensor for name, tensor in state.items()}


def from_hf_state(config: EncoderDecoderConfig, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """transformers' state dict under our names; the inverse of `to_hf_state`.

    Raises UserError naming a key this config's model does not have.
    """
    names = {theirs: ours for ours, theirs in _names(config).items()}
    return {_rename(name, names): value for name, value in drop_redundant(config, theirs).items()}


def drop_redundant(config: EncoderDecoderConfig, theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the copies that files hold of the shared embedding, and one table nobody reads."""
    redundant = {"encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}
    # A mistake of the first version's files: cross-attention has no positions.
    redundant.add("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight")
    if config.tie_embeddings:
        redundant.add("lm_head.weight")
    return {name: value for name, value in theirs.items() if name not in redundant}


def _names(config: EncoderDecoderConfig) -> dict[str, str]:
    """Our module names -> theirs."""
    names = {"embedding": "shared", "head": "lm_head"}
    gated = config.feed_forward.kind == "gated"
    up = {"gate": "wi_0", "up": "wi_1"} if gated else {"up": "wi"}
    for stack, layers in (
        ("encoder", config.num_encoder_layers),
        ("decoder", config.num_decoder_layers),
    ):
        first = f"{stack}.block.0.layer.0.SelfAttention"
        names[f"{stack}.bias.table"] = f"{first}.relative_attention_bias"
        names[f"{stack}.final_norm"] = f"{stack}.final_layer_norm"
        for index in range(layers):
            ours, theirs = f"{stack}.blocks.{index}", f"{stack}.block.{index}.layer"
            branches = [("attention", "SelfAttention")]
            if stack == "decoder":
                branches.append(("cross_attention", "EncDecAttention"))
            for place, (our_branch, their_branch) in enumerate(branches):
                norm = our_branch.replace("cross_attention", "cross") + "_norm"
                names[f"{ours}.{norm}"] = f"{theirs}.{place}.layer_norm"
                for part in ("query", "key", "value", "out"):
                    names[f"{ours}.{our_branch}.{part}"] = (
                        f"{theirs}.{place}.{their_branch}.{part[0]}"
                    )
            place = len(branches)
            names[f"{ours}.feed_forward_norm"] = f"{theirs}.{place}.layer_norm"
            for part, their_part in (up | {"down": "wo"}).items():
                their_name = f"{theirs}.{place}.DenseReluDense.{their_part}"
                names[f"{ours}.feed_forward.{part}"] = their_name
    return names


def _rename(name: str, names: Mapping[str, str]) -> str:
    module, _, leaf = name.rpartition(".")
    require(module in names, f"The weights hold an unexpected tensor '{name}'.")
    return f"{names[module]}.{leaf}"


def _check(config: EncoderDecoderConfig) -> None:
    attention, network = config.attention, config.feed_forward
    kind = (network.kind, network.activation)
    needed: dict[str, tuple[Any, Any]] = {
        "positions.kind": (config.positions.kind, "t5"),
        **plain_attention(config),
        "norm.kind": (config.norm.kind, "rmsnorm"),
        "norm.placement": (config.norm.placement, "pre"),
        "norm.scale": (config.norm.scale, True),
        "norm.bias": (config.norm.bias, True),
        "feed_forward.bias": (network.bias, False),
        "feed_forward.kind and activation": (kind in _FEED_FORWARDS.values(), True),
        "attention.qkv_bias": (attention.qkv_bias, False),
        "attention.out_bias": (attention.out_bias, False),
        "attention.qk_norm": (attention.qk_norm, False),
        "attention.scale": (attention.scale, 1.0),
        "attention.num_kv_heads": (attention.num_kv_heads, attention.num_heads),
        "embedding_scale": (config.embedding_scale, 1.0),
        "head_scale": (config.head_scale, _head_scale(config)),
    }
    for field, (value, expected) in needed.items():
        require(
            value == expected,
            f"transformers has no architecture for this model: t5 needs {field} = "
            f"{expected!r}, but it is {value!r}.",
        )


def _head_scale(config: EncoderDecoderConfig) -> float:
    """What T5 multiplies by before the head; version 1.1, with a head of its own, does not."""
    return config.width**-0.5 if config.tie_embeddings else 1.0
