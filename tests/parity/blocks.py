"""Norms, feed-forward and recurrent layers, whole blocks, experts, losses beside torch.nn."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.data.batch import IGNORE
from groundup.models.image import patches
from groundup.nn.batch_norm import BatchNorm
from groundup.nn.block import Block
from groundup.nn.config import AttentionConfig, ExpertsConfig, FeedForwardConfig, NormConfig
from groundup.nn.feed_forward import build_feed_forward
from groundup.nn.masks import Causal, Padding, plan
from groundup.nn.moe import MixtureOfExperts
from groundup.nn.norms import LayerNorm, RMSNorm
from groundup.nn.recurrent import Recurrent
from groundup.train.objectives import cross_entropy_sum
from parity.attention import CPU, heads
from parity.harness import BOTH, EXACT, Case, Pair, Weights, module_function, random_weights

LENGTH = 37
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "relu2": lambda x: x.clamp(min=0) ** 2,
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
    "silu": nn.SiLU(),
}


def norm_pair(ours: Any, theirs: Any, scale: float) -> Pair:
    """Inputs far from 1: what is added to the variance shows, or overflows."""
    module, x = ours(37, 1e-6), scale * (torch.randn(3, 5, 37) + 0.5)
    reference = module_function(theirs(37, 1e-6))
    return Pair(module_function(module), reference, random_weights(module, 1.0), (x,))


def batch_norm_pair(shape: tuple[int, ...], theirs: Any, training: bool) -> Pair:
    """The output, and the running statistics after it, as one vector."""
    sides = BatchNorm(shape[1]), theirs(shape[1])
    means, variances = torch.randn(shape[1]), torch.rand(shape[1]) + 0.5

    def run(module: nn.Module, x: Tensor) -> Tensor:
        state = module.state_dict()
        state["running_mean"].copy_(means)
        state["running_var"].copy_(variances)
        y = module.train(training)(x)
        return torch.cat((y.flatten(), state["running_mean"], state["running_var"]))

    def exact(weights: Weights) -> Weights:  # torch refuses running statistics in another format
        return {name: tensor.float() for name, tensor in weights.items()}

    ours, reference = (module_function(side, exact, run) for side in sides)
    return Pair(ours, reference, random_weights(sides[0], 1.0), (2 * torch.randn(shape) + 1,))


def feed_forward_pair(kind: Any, activation: Any, bias: bool) -> Pair:
    """Two or three matrices with an activation between."""
    config = FeedForwardConfig(kind=kind, activation=activation, width=41, bias=bias)
    ours, act = build_feed_forward(config, 23), ACTIVATIONS[activation]

    def expected(weights: Weights, x: Tensor) -> Tensor:
        def linear(name: str, x: Tensor) -> Tensor:
            return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

        if kind == "plain":
            return linear("down", act(linear("up", x)))
        return linear("down", act(linear("gate", x)) * linear("up", x))

    return Pair(module_function(ours), expected, random_weights(ours), (torch.randn(3, 7, 23),))


def cell_pair(kind: Any, theirs: Any) -> Pair:
    """One layer, one token after the other; the last state but the output, all as one vector."""
    ours = Recurrent(kind, 7, 11)
    parts = 2 if kind == "lstm" else 1

    def translate(weights: Weights) -> Weights:
        names = {"input": "ih", "hidden": "hh"}
        parts = ((*name.split(".")[2:], tensor) for name, tensor in weights.items())
        return {f"{leaf}_{names[part]}": tensor for part, leaf, tensor in parts}

    def mine(module: Recurrent, x: Tensor, *state: Tensor) -> Tensor:
        y, last = module.loop(x, tuple(part[None] for part in state))
        return torch.cat((y.transpose(0, 1).flatten(), last[-1].flatten()))

    def expected(cell: nn.Module, x: Tensor, *state: Tensor) -> Tensor:
        outputs = []
        for token in x.unbind(1):
            state = cell(token, state) if parts == 2 else (cell(token, *state),)
            outputs.append(state[0])
        return torch.cat([part.flatten() for part in (*outputs, state[-1])])

    return Pair(
        ours=module_function(ours, call=mine),
        theirs=module_function(theirs(7, 11), translate, expected),
        weights=random_weights(ours),
        inputs=(torch.randn(3, LENGTH, 7), *(torch.randn(3, 11) for _ in range(parts))),
    )


def recurrent_pair(kind: Any, theirs: Any, method: str) -> Pair:
    """Three layers: outputs and last states, as one vector."""
    layers, parts = 3, 2 if kind == "lstm" else 1
    ours, reference = Recurrent(kind, 7, 11, layers), theirs(7, 11, layers, batch_first=True)

    def translate(weights: Weights) -> Weights:
        found = {}
        for name, tensor in weights.items():
            _, layer, part, leaf = name.split(".")
            found[f"{leaf}_{part[0]}h_l{layer}"] = tensor
        return found

    def mine(module: Recurrent, x: Tensor, *state: Tensor) -> Tensor:
        y, last = getattr(module, method)(x, state)
        return torch.cat([part.flatten() for part in (y, *last)])

    def expected(module: nn.Module, x: Tensor, *state: Tensor) -> Tensor:
        y, last = module(x, state if parts == 2 else state[0])
        return torch.cat([part.flatten() for part in (y, *(last if parts == 2 else (last,)))])

    states = (torch.randn(layers, 3, 11) for _ in range(parts))
    return Pair(
        ours=module_function(ours, call=mine),
        theirs=module_function(reference, translate, expected),
        weights=random_weights(ours),
        inputs=(torch.randn(3, LENGTH, 7), *states),
    )


def block_pair(writes: bool, placement: Any, activation: Any) -> Pair:
    """A whole layer: of an encoder with padded rows, or of a decoder that looks up such."""
    ours = Block(
        30,
        AttentionConfig(num_heads=5, num_kv_heads=5, head_width=6, qkv_bias=True, out_bias=True),
        FeedForwardConfig(kind="plain", activation=activation, width=44, bias=True),
        NormConfig(kind="layernorm", eps=1e-5, placement=placement),
        memory_width=30 if writes else None,
    )
    layer: Any = nn.TransformerDecoderLayer if writes else nn.TransformerEncoderLayer
    theirs = layer(
        30, 5, 44, dropout=0.0, activation=activation, batch_first=True,
        norm_first=placement == "pre",
    )  # fmt: skip
    lengths = torch.tensor([29, 11, 1])
    hidden, future = torch.arange(29) >= lengths[:, None], torch.ones(LENGTH, LENGTH).triu(1).bool()

    def mine(module: Block, x: Tensor, *memory: Tensor) -> Tensor:
        if not memory:
            return module(x, plan(Padding(lengths), 29, 29, CPU))
        assert module.cross_attention is not None
        seen = plan(Padding(lengths), LENGTH, 29, CPU)
        found = module.cross_attention.remember(*memory)
        mask = plan(Causal(), LENGTH, LENGTH, CPU)
        return module(x, mask, memory=found, memory_mask=seen)

    def expected(module: nn.Module, x: Tensor, *memory: Tensor) -> Tensor:
        if not memory:
            return module(x, src_key_padding_mask=hidden)
        return module(x, *memory, tgt_mask=future, memory_key_padding_mask=hidden)

    x = torch.randn(3, LENGTH if writes else 29, 30)
    inputs = (x, torch.randn(3, 29, 30)) if writes else (x,)
    return Pair(
        ours=module_function(ours, call=mine),
        theirs=module_function(theirs, torch_layer, expected),
        weights=random_weights(ours),
        inputs=inputs,
    )


def torch_layer(weights: Weights) -> Weights:
    """A block's weights under the names of torch's encoder or decoder layer."""
    crosses = any(name.startswith("cross_norm") for name in weights)
    norms = ["attention_norm", *(["cross_norm"] if crosses else []), "feed_forward_norm"]
    names = {ours: f"norm{place}" for place, ours in enumerate(norms, 1)}
    names |= {"feed_forward.up": "linear1", "feed_forward.down": "linear2"}
    found = {f"self_attn.{name}": w for name, w in heads(weights, "attention.").items()}
    if crosses:
        crossing = heads(weights, "cross_attention.")
        found |= {f"multihead_attn.{name}": w for name, w in crossing.items()}
    for ours, theirs in names.items():
        found |= {f"{theirs}.{leaf}": weights[f"{ours}.{leaf}"] for leaf in ("weight", "bias")}
    return found


def experts_pair(width: int, hidden: int, kind: Any, **experts: Any) -> Pair:
    """Every expert on every token, and zeros where it was not chosen."""
    sizes: Any = {"num_experts": 5, "top_k": 2} | experts
    options = ExpertsConfig(**sizes)
    ours = build_feed_forward(FeedForwardConfig(kind=kind, width=hidden, experts=options), width)
    assert isinstance(ours, MixtureOfExperts)

    def expected(weights: Weights, x: Tensor) -> Tensor:
        scores = F.linear(x, weights["router.scorer.weight"]).float()
        scores = scores.softmax(-1) if options.score == "softmax" else scores.sigmoid()
        chosen = scores >= scores.topk(options.top_k).values[..., -1:]
        share = scores * chosen
        if options.normalize:
            share = share / share.sum(-1, keepdim=True)
        share = (options.scale * share).to(x.dtype)
        y = torch.zeros_like(x)
        for expert in range(options.num_experts):
            up, down = weights["up.weight"][expert], weights["down.weight"][expert]
            inner = F.linear(x, up)
            if kind == "gated":
                inner = F.silu(F.linear(x, weights["gate.weight"][expert])) * inner
            else:
                inner = F.silu(inner)
            y = y + share[..., expert, None] * F.linear(inner, down)
        if options.shared_width:
            gate = F.silu(F.linear(x, weights["shared.gate.weight"]))
            inner = gate * F.linear(x, weights["shared.up.weight"])
            y = y + F.linear(inner, weights["shared.down.weight"])
        return y

    weights = random_weights(ours, 0.0) | {
        name: 0.3 * torch.randn(parameter.shape) for name, parameter in ours.named_parameters()
    }
    x = torch.randn(2, LENGTH, width)
    return Pair(module_function(ours), expected, weights, (x,))


def loss_pair() -> Pair:
    """Summed over the positions that are targets, in fp32 whatever the logits are."""
    targets = torch.randint(0, 131, (3, LENGTH))
    targets[torch.rand(3, LENGTH) < 0.3] = IGNORE
    kept = targets != IGNORE

    def expected(weights: Weights, logits: Tensor) -> Tensor:
        return -logits.float()[kept].log_softmax(-1).gather(1, targets[kept][:, None]).sum()

    def mine(weights: Weights, logits: Tensor) -> Tensor:
        return cross_entropy_sum(logits, targets)

    return Pair(mine, expected, {}, (3 * torch.randn(3, LENGTH, 131),))


def patches_pair() -> Pair:
    """Patches through a matrix are a convolution whose stride is its width."""

    def mine(weights: Weights, images: Tensor) -> Tensor:
        return F.linear(patches(images, 7), weights["weight"], weights["bias"])

    def expected(weights: Weights, images: Tensor) -> Tensor:
        kernel = weights["weight"].view(-1, 3, 7, 7)
        found = F.conv2d(images, kernel, weights["bias"], stride=7)
        return found.flatten(2).transpose(1, 2)

    weights = {"weight": 0.1 * torch.randn(19, 147), "bias": torch.randn(19)}
    return Pair(mine, expected, weights, (torch.randn(2, 3, 21, 35),))


def cases() -> dict[str, Case]:
    """Every block but attention and positions."""
    return {
        **_norms(),
        **_feed_forward(),
        **_recurrent(),
        **_layers(),
        **_experts(),
        "cross-entropy of targets": Case("log_softmax and gather", loss_pair),
        "patches of images": Case("F.conv2d", patches_pair),
    }


def _norms() -> dict[str, Case]:
    found = {}
    for scale in (1e-3, 1.0, 1e3):
        for ours, theirs in ((LayerNorm, nn.LayerNorm), (RMSNorm, nn.RMSNorm)):
            name = f"{ours.__name__}, inputs of {scale:g}"
            found[name] = Case(f"nn.{ours.__name__}", partial(norm_pair, ours, theirs, scale))
    for name, shape, reference in (
        ("features", (7, 5), nn.BatchNorm1d),
        ("sequences", (3, 5, 11), nn.BatchNorm1d),
        ("images", (3, 5, 7, 4), nn.BatchNorm2d),
        ("volumes", (2, 5, 3, 7, 4), nn.BatchNorm3d),
    ):
        for when, training in (("training", True), ("evaluation", False)):
            build = partial(batch_norm_pair, shape, reference, training)
            found[f"BatchNorm of {name}, in {when}"] = Case(f"nn.{reference.__name__}", build)
    return found


def _feed_forward() -> dict[str, Case]:
    found = {}
    for kind in ("plain", "gated"):
        for activation in ACTIVATIONS:
            build = partial(feed_forward_pair, kind, activation, activation != "silu")
            dtypes = EXACT if activation == "relu" else BOTH
            found[f"feed-forward, {kind}, {activation}"] = Case("F.linear", build, dtypes)
    return found


def _recurrent() -> dict[str, Case]:
    found = {}
    for kind, cell, layers in (
        ("rnn", nn.RNNCell, nn.RNN),
        ("gru", nn.GRUCell, nn.GRU),
        ("lstm", nn.LSTMCell, nn.LSTM),
    ):
        fused, loop = (partial(recurrent_pair, kind, layers, way) for way in ("forward", "loop"))
        name = f"nn.{layers.__name__}"
        found[f"{kind} cell"] = Case(f"nn.{cell.__name__}", partial(cell_pair, kind, cell))
        found[f"{kind}, 3 layers, fused"] = Case(name, fused)
        found[f"{kind}, 3 layers, cell by cell"] = Case(name, loop, EXACT)
    return found


def _layers() -> dict[str, Case]:
    found = {}
    for side in ("Encoder", "Decoder"):
        for placement in ("pre", "post"):
            for activation in ("relu", "gelu"):
                build = partial(block_pair, side == "Decoder", placement, activation)
                dtypes = EXACT if activation == "relu" else BOTH
                name = f"{side.lower()} layer, {placement}-norm, {activation}"
                found[name] = Case(f"nn.Transformer{side}Layer", build, dtypes)
    return found


def _experts() -> dict[str, Case]:
    sigmoid = {"score": "sigmoid", "shared_width": 17, "scale": 2.5}
    cases = {
        "grouped kernel": partial(experts_pair, 24, 40, "gated"),
        "odd widths": partial(experts_pair, 23, 37, "gated"),
        "plain": partial(experts_pair, 23, 37, "plain", top_k=3),
        "one of seven": partial(
            experts_pair, 24, 40, "gated", num_experts=7, top_k=1, normalize=False
        ),
        "sigmoid, shared": partial(experts_pair, 23, 37, "gated", **sigmoid),
        "all of three": partial(experts_pair, 23, 37, "gated", num_experts=3, top_k=3),
    }
    return {
        f"experts, {name}": Case(
            "every expert on every token", build, BOTH if name == "all of three" else EXACT
        )
        for name, build in cases.items()
    }
