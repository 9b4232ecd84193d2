"""nanochat's own parts beside a second, plainer way to compute them, and each part by itself."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.config import UserError, from_dict, to_dict
from groundup.models.config import DecoderConfig, flops_per_token, num_matmul_weights
from groundup.models.decoder import Decoder
from groundup.models.presets import llama, nanochat
from groundup.nn.config import LatentConfig, TokenValuesConfig
from groundup.optim.build import build_optimizer
from groundup.optim.config import OptimizerConfig
from groundup.optim.groups import parameter_kinds

SHAPE = {
    "vocab_size": 131,
    "width": 42,
    "num_layers": 5,
    "num_heads": 6,
    "num_kv_heads": 2,
    "head_width": 10,
    "context_length": 53,
}
CONFIG = nanochat(**SHAPE)


def normed(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


def turned(x: Tensor, theta: float) -> Tensor:
    """(B, T, H, E): complex numbers of channels i and i + E/2, times e^(i · position · speed)."""
    half = x.shape[-1] // 2
    speeds = theta ** -(torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(x.shape[1], dtype=torch.float64)[:, None, None] * speeds
    pairs = torch.complex(x[..., :half], x[..., half:]) * torch.polar(
        torch.ones_like(angles), angles
    )
    return torch.cat((pairs.real, pairs.imag), -1)


def reference(state: dict[str, Tensor], config: DecoderConfig, ids: Tensor) -> Tensor:
    """ids (B, T) -> logits: one row, one head and one query at a time where that is simplest."""
    heads, groups, width = 6, 2, 10
    quarter = math.ceil(config.context_length / 4)
    stream = first = normed(state["embedding.weight"][ids])
    for layer in range(config.num_layers):
        name = f"blocks.{layer}."
        stream = state["stream_scales"][layer] * stream + state["first_scales"][layer] * first
        x = normed(stream)
        query, key, value = (
            (x @ state[f"{name}attention.{part}.weight"].T).unflatten(-1, (-1, width))
            for part in ("query", "key", "value")
        )
        if layer in (0, 2, 4):  # every second, the last among them
            table = state[f"token_values.{layer}.table.weight"][ids].unflatten(-1, (-1, width))
            gate = 3 * torch.sigmoid(x[..., :12] @ state[f"token_values.{layer}.gate.weight"].T)
            value = value + gate[..., None] * table
        # The norm stands after RoPE here, before it in the model.
        query, key = (1.2 * normed(turned(part, 100_000.0)) for part in (query, key))
        window = quarter if layer in (0, 1, 2) else config.context_length  # SSSL, and the last all
        found = torch.zeros_like(query)
        for row in range(ids.shape[0]):
            for head in range(heads):
                keys, values = (part[row, :, head // (heads // groups)] for part in (key, value))
                for t in range(ids.shape[1]):
                    seen = slice(max(0, t - window + 1), t + 1)
                    weights = F.softmax(keys[seen] @ query[row, t, head] / math.sqrt(width), 0)
                    found[row, t, head] = weights @ values[seen]
        stream = stream + found.flatten(2) @ state[f"{name}attention.out.weight"].T
        inner = (normed(stream) @ state[f"{name}feed_forward.up.weight"].T).clamp(min=0) ** 2
        stream = stream + inner @ state[f"{name}feed_forward.down.weight"].T
    return 15 * torch.tanh(normed(stream) @ state["head.weight"].T / 15)


def test_it_computes_what_the_reference_does() -> None:
    model = Decoder(CONFIG).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    ids = torch.randint(0, 131, (2, 37))
    state = {name: tensor.clone().requires_grad_() for name, tensor in model.state_dict().items()}
    logits, expected = model(ids), reference(state, CONFIG, ids)
    assert expected.abs().max() > 5  # the cap bends them
    # Angles and norms are computed in float32 in the model, whatever its weights are.
    torch.testing.assert_close(logits, expected, atol=3e-5, rtol=1e-5)
    weighting = torch.randn_like(logits)
    names, parameters = zip(*model.named_parameters(), strict=True)
    ours = torch.autograd.grad((logits * weighting).sum(), parameters)
    theirs = torch.autograd.grad((expected * weighting).sum(), [state[name] for name in names])
    for name, mine, other in zip(names, ours, theirs, strict=True):
        assert (mine - other).abs().max() < 1e-4 * other.abs().max(), name


def test_its_shape() -> None:
    config = nanochat(**SHAPE | {"num_layers": 9, "context_length": 64})
    assert config.attention.windows == (16, 16, 16, 0, 16, 16, 16, 0, 0)
    assert nanochat(pattern="L", **SHAPE).attention.windows == ()
    assert not config.tie_embeddings and config.feed_forward.width == 4 * 42
    model = Decoder(config)
    assert not any("norm" in name or "bias" in name for name in model.state_dict())
    assert model.token_values is not None and list(model.token_values) == ["0", "2", "4", "6", "8"]
    assert from_dict(DecoderConfig, to_dict(config)) == config


def test_counts_by_hand() -> None:
    layer = 42 * (6 + 2 + 2) * 10 + 60 * 42 + 2 * 42 * 168
    gates = 3 * 12 * 2
    assert num_matmul_weights(CONFIG) == 5 * layer + gates + 131 * 42
    # Windows of 14 keys: 14 · (2 - 14 / 37) count for 37; of five layers three have one.
    seen = 3 * (14 * (2 * 37 - 14) // 37) + 2 * 37
    assert flops_per_token(CONFIG, 37) == 6 * num_matmul_weights(CONFIG) + 6 * seen * 60
    tables = 3 * 131 * 20
    assert Decoder(CONFIG).num_parameters() == 5 * layer + gates + 2 * 131 * 42 + tables + 2 * 5


PLAIN = llama(**SHAPE)
VALUES = TokenValuesConfig(gate_width=7, limit=2.0)
PARTS = {
    "embedding_norm": True,
    "logit_soft_cap": 0.5,
    "token_values": VALUES,
    "stream_scales": True,
}


@pytest.mark.parametrize(("field", "value"), PARTS.items())
def test_each_part_composes_with_another_family(field: str, value: object) -> None:
    """Every part changes what a Llama computes, and everything in it learns."""
    ids = torch.randint(0, 131, (2, 37))
    torch.manual_seed(0)
    plain = Decoder(PLAIN)
    model = Decoder(replace(PLAIN, **{field: value}))
    model.load_state_dict(plain.state_dict(), strict=False)
    logits = model(ids)
    assert not torch.allclose(logits, plain(ids), atol=1e-4)
    logits.logsumexp(-1).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_what_cannot_be_is_named() -> None:
    latent = LatentConfig(rank=7, rope_width=4, value_width=5)
    attention = replace(PLAIN.attention, num_kv_heads=6, latent=latent)
    for changes, message in (
        ({"token_values": VALUES, "attention": attention}, "attention.latent"),
        ({"token_values": TokenValuesConfig(gate_width=43)}, "gate_width 43"),
        ({"logit_soft_cap": 0.0}, "logit_soft_cap"),
    ):
        with pytest.raises(UserError, match=message):
            replace(PLAIN, **changes)
    with pytest.raises(UserError, match="limit"):
        TokenValuesConfig(limit=0.0)


def test_it_trains_as_any_other() -> None:
    """By Muon and AdamW, each parameter in its group; recomputing changes no gradient."""
    model = Decoder(CONFIG).train()
    kinds = parameter_kinds(model)
    assert kinds["token_values.0.table.weight"] == "embedding"
    assert kinds["token_values.0.gate.weight"] == "matrix"
    assert kinds["stream_scales"] == kinds["first_scales"] == "vector"
    optimizer = build_optimizer(model, OptimizerConfig(kind="muon"))
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids, losses, gradients = torch.randint(0, 131, (4, 20)), [], []
    for model.checkpointing in (1, 0) + 25 * (0,):
        logits = model(ids[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        if len(gradients) < 2:
            gradients.append([parameter.grad.clone() for parameter in model.parameters()])  # type: ignore[union-attr]
        if model.checkpointing == 0:
            optimizer.step()
        losses.append(loss.item())
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    assert losses[-1] < 0.7 * losses[0]
    assert not any(torch.equal(start[name], now) for name, now in model.state_dict().items())


def test_a_step_of_it_is_one_graph() -> None:
    """Nothing in Python breaks it, so that torch.compile can take it whole."""
    model = Decoder(CONFIG).train()
    ids, documents = torch.randint(0, 131, (2, 37)), (torch.arange(37) // 9).expand(2, -1)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(ids, documents=documents), model(ids, documents=documents))
