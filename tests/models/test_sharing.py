"""Layers that share a block: one set of weights, as many passes, and its gradients added up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from groundup.config import UserError
from groundup.models.encoder_config import HeadConfig, bert
from groundup.models.folder import load_any, save_any
from groundup.models.kinds import build
from groundup.models.presets import llama, mixtral

SIZES: dict[str, Any] = {
    "vocab_size": 131,
    "width": 36,
    "num_layers": 5,
    "num_heads": 3,
    "context_length": 41,
    "feed_forward_width": 50,
}
DECODER = llama(**SIZES, num_kv_heads=1)
DECODER = replace(DECODER, attention=replace(DECODER.attention, windows=(7, 0)))
CONFIGS = {"decoder": DECODER, "encoder": bert(**SIZES, head=HeadConfig(kind="masked"))}
GROUPS = {1: [0, 0, 0, 0, 0], 2: [0, 0, 0, 1, 1], 3: [0, 0, 1, 1, 2]}


def shared_and_apart(kind: str, distinct: int) -> tuple[Any, Any]:
    """A model with shared layers, and one with the same weights copied to every layer."""
    shared = build(replace(CONFIGS[kind], distinct_layers=distinct)).eval()
    apart = build(CONFIGS[kind]).eval()
    for parameter in shared.parameters():
        nn.init.normal_(parameter, std=0.3)
    apart.load_state_dict(spread(shared.state_dict(), distinct))
    return shared, apart


def spread(state: dict[str, Tensor], distinct: int) -> dict[str, Tensor]:
    rest = {name: tensor for name, tensor in state.items() if not name.startswith("blocks.")}
    for layer, block in enumerate(GROUPS[distinct]):
        prefix = f"blocks.{block}."
        for name, tensor in state.items():
            if name.startswith(prefix):
                rest[f"blocks.{layer}.{name.removeprefix(prefix)}"] = tensor
    return rest


@pytest.mark.parametrize("distinct", GROUPS)
@pytest.mark.parametrize("kind", CONFIGS)
def test_it_is_the_model_with_the_weights_copied(kind: str, distinct: int) -> None:
    shared, apart = shared_and_apart(kind, distinct)
    ids = torch.randint(0, 131, (2, 37))
    logits, expected = shared(ids), apart(ids)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    weighting = torch.randn_like(logits)
    for output in (logits, expected):
        (output * weighting).sum().backward()
    copies = dict(apart.named_parameters())
    for name, parameter in shared.named_parameters():
        names = [name]
        if name.startswith("blocks."):
            _, block, rest = name.split(".", 2)
            layers = [i for i, one in enumerate(GROUPS[distinct]) if one == int(block)]
            names = [f"blocks.{layer}.{rest}" for layer in layers]
        total = torch.stack([copies[one].grad for one in names]).sum(0)  # type: ignore[misc]
        scale = total.abs().max() + 1e-9
        assert (parameter.grad - total).abs().max() <= 1e-4 * scale, name


@pytest.mark.parametrize("kind", CONFIGS)
def test_weights_count_once_and_work_as_often(kind: str) -> None:
    shared, apart = shared_and_apart(kind, 2)
    block = sum(parameter.numel() for parameter in shared.blocks[0].parameters())
    assert apart.num_parameters() - shared.num_parameters() == 3 * block
    assert shared.flops_per_token(37) == apart.flops_per_token(37)


def test_every_layer_has_a_cache_of_its_own() -> None:
    shared, _ = shared_and_apart("decoder", 1)
    ids, cache = torch.randint(0, 131, (2, 37)), shared.new_cache(2, 41)
    assert len(cache.layers) == 5
    with torch.no_grad():
        pieces = [shared(ids[:, :20], cache=cache), shared(ids[:, 20:], cache=cache)]
        torch.testing.assert_close(torch.cat(pieces, 1), shared(ids), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", CONFIGS)
def test_folders_hold_them_once(kind: str, tmp_path) -> None:
    shared, _ = shared_and_apart(kind, 1)
    save_any(tmp_path / "model", shared, None, {})
    loaded = load_any(tmp_path / "model").model
    assert loaded.config == shared.config and len(loaded.blocks) == 1
    ids = torch.randint(0, 131, (1, 9))
    with torch.no_grad():
        assert torch.equal(loaded(ids), shared(ids))


def test_what_cannot_be_shared_is_named() -> None:
    with pytest.raises(UserError, match="from 0 to num_layers 5, but is 6"):
        replace(DECODER, distinct_layers=6)
    experts = mixtral(**SIZES, num_experts=3)
    with pytest.raises(UserError, match="feed_forward.experts"):
        replace(experts, distinct_layers=1)
