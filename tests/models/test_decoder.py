"""The decoder: no look into the future, cached equals uncached, documents stay apart."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from groundup.config import UserError
from groundup.models.config import DecoderConfig, PositionsConfig
from groundup.models.decoder import Decoder
from groundup.models.presets import gpt2, llama, qwen3
from groundup.nn.config import LatentConfig

VOCABULARY, CONTEXT = 131, 41


def _shape(**changes: object) -> dict:
    shape = {"vocab_size": VOCABULARY, "width": 36, "num_layers": 3, "context_length": CONTEXT}
    return shape | changes


def _with_attention(config: DecoderConfig, **changes: object) -> DecoderConfig:
    return dataclasses.replace(config, attention=dataclasses.replace(config.attention, **changes))


def _with_norm(config: DecoderConfig, **changes: object) -> DecoderConfig:
    return dataclasses.replace(config, norm=dataclasses.replace(config.norm, **changes))


CONFIGS: dict[str, DecoderConfig] = {
    "qwen3": qwen3(**_shape(num_heads=4, num_kv_heads=2, head_width=10)),
    "llama": llama(**_shape(num_heads=3, num_kv_heads=1)),
    "gpt2": gpt2(**_shape(num_heads=3)),
    **{
        kind: dataclasses.replace(
            llama(**_shape(num_heads=3, num_kv_heads=1)), positions=PositionsConfig(kind=kind)
        )
        for kind in ("sinusoidal", "alibi", "t5")
    },
    "windows": _with_attention(llama(**_shape(num_heads=3, num_kv_heads=1)), windows=(4, 0, 7)),
    "capped": _with_attention(llama(**_shape(num_heads=3, num_kv_heads=1)), soft_cap=3.0),
    "sinks": _with_attention(gpt2(**_shape(num_heads=3)), sinks=True, windows=(5, 0)),
    **{
        placement: _with_norm(gpt2(**_shape(num_heads=3)), placement=placement)
        for placement in ("parallel", "parallel_shared")
    },
    "gated": _with_attention(llama(**_shape(num_heads=3)), gate=True),
    "differential": _with_attention(
        llama(**_shape(num_heads=4, num_kv_heads=2, head_width=6)), differential=0.8, windows=(9, 0)
    ),
    "latent": _with_attention(
        llama(**_shape(num_heads=3, num_kv_heads=3)),
        latent=LatentConfig(rank=7, rope_width=4, value_width=5, query_rank=9),
        windows=(0, 9),
    ),
    "no-positions": dataclasses.replace(
        llama(**_shape(num_heads=2)), positions=PositionsConfig(kind="none"), head_bias=True
    ),
}


@pytest.fixture(params=CONFIGS, ids=list(CONFIGS))
def model(request: pytest.FixtureRequest) -> Decoder:
    return _sharpened(Decoder(CONFIGS[request.param]).eval())


def _sharpened(model: Decoder) -> Decoder:
    """Larger weights than at the start of training, so that a mistake shows in the logits."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6)
    for name, parameter in model.named_parameters():
        if name.endswith("sinks"):
            torch.nn.init.normal_(parameter)
    return model


def _ids(batch: int = 2, length: int = 37) -> Tensor:
    return torch.randint(0, VOCABULARY, (batch, length))


def test_shapes_and_the_split_from_the_head(model):
    ids = _ids()
    logits, hidden = model(ids), model.hidden(ids)
    assert logits.shape == (2, 37, VOCABULARY) and hidden.shape == (2, 37, 36)
    assert torch.equal(logits, model.logits(hidden))


def test_a_window_bounds_the_cache_and_what_is_seen():
    config = _with_attention(CONFIGS["llama"], windows=(4,))
    model = _sharpened(Decoder(config).eval())
    assert model.new_cache(2, 10_000).num_bytes == model.new_cache(2, 9).num_bytes
    ids = _ids()
    changed = ids.clone()
    changed[:, 5] = (changed[:, 5] + 1) % VOCABULARY
    with torch.no_grad():
        moved = (model(ids) != model(changed)).any(-1)
    # Three layers hand on what each sees: 3 keys back, 3 times.
    assert moved[:, 5:15].all() and not moved[:, 15:].any() and not moved[:, :5].any()
    full = Decoder(CONFIGS["llama"])
    assert model.flops_per_token(4) == full.flops_per_token(4)
    assert model.flops_per_token(40) < full.flops_per_token(40)


def test_checkpointing_gives_equal_gradients(model):
    model.train()
    ids, gradients = _ids(), []
    for model.checkpointing in (0, 1, 2):
        model.zero_grad()
        model(ids).logsumexp(-1).mean().backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name
        assert torch.equal(gradient, gradients[2][name]), name


@pytest.mark.parametrize(("every", "expected"), [(0, [1, 1, 1]), (1, [2, 2, 2]), (2, [2, 1, 2])])
def test_which_blocks_are_computed_twice(every, expected):
    model = Decoder(CONFIGS["qwen3"]).train()
    model.checkpointing, calls = every, [0, 0, 0]
    for index, block in enumerate(model.blocks):
        block.feed_forward.register_forward_pre_hook(
            lambda *_, index=index: calls.__setitem__(index, calls[index] + 1)
        )
    model(_ids()).logsumexp(-1).mean().backward()
    assert calls == expected


def test_checkpointing_repeats_the_same_dropout():
    model = Decoder(gpt2(**_shape(num_heads=3), dropout=0.2)).train()
    ids, gradients = _ids(), []
    for model.checkpointing in (0, 1, 2):
        torch.manual_seed(5)
        model.zero_grad()
        model(ids).logsumexp(-1).mean().backward()
        gradients.append(model.embedding.weight.grad.clone())
    assert torch.equal(gradients[0], gradients[1]) and torch.equal(gradients[0], gradients[2])


def test_a_tied_head_is_one_parameter():
    tied = Decoder(qwen3(**_shape(num_heads=3), tie_embeddings=True))
    untied = Decoder(qwen3(**_shape(num_heads=3), tie_embeddings=False))
    assert tied.head_weight is tied.embedding.weight
    assert untied.num_parameters() - tied.num_parameters() == VOCABULARY * 36
    assert "head.weight" not in tied.state_dict()
    fresh = Decoder(tied.config)
    fresh.load_state_dict(tied.state_dict())
    assert fresh.head_weight is fresh.embedding.weight
    tied(_ids()).sum().backward()
    assert tied.embedding.weight.grad is not None


def test_moving_through_the_meta_device_keeps_the_tie_and_the_tables():
    reference = Decoder(CONFIGS["qwen3"])
    torch.manual_seed(3)
    reference.initialize()
    with torch.device("meta"):
        late = Decoder(CONFIGS["qwen3"])
    late.to_empty(device="cpu")
    torch.manual_seed(3)
    late.initialize()
    ids = _ids()
    assert torch.equal(reference(ids), late(ids))


@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_bfloat16_autocast_is_finite_and_close(name):
    torch.manual_seed(0)
    model = Decoder(CONFIGS[name]).train()
    ids = _ids()
    expected = model(ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(ids)
    logits.float().logsumexp(-1).mean().backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32
               for p in model.parameters())  # fmt: skip
    error = (logits.float() - expected).abs().max() / expected.abs().max()
    assert error < 0.03


def test_a_bfloat16_model_decodes_through_its_own_cache(model):
    model = model.bfloat16()
    ids = _ids(2, 9)
    cache = model.new_cache(2, 9)
    with torch.no_grad():
        pieces = [model(ids[:, :6], cache=cache), model(ids[:, 6:7], cache=cache)]
    assert cache.layers[0].keys.dtype == torch.bfloat16
    whole = model(ids[:, :7]).float()
    error = (torch.cat(pieces, 1).float() - whole).abs().max() / whole.abs().max()
    assert error < 0.05


def test_too_long_a_sequence_is_refused_kindly():
    model = Decoder(CONFIGS["qwen3"]).eval()
    with pytest.raises(UserError, match="42 tokens long, but the model's context_length is 41"):
        model(_ids(1, 42))
    cache = model.new_cache(1, 50)
    with torch.no_grad():
        model(_ids(1, 41), cache=cache)
        with pytest.raises(UserError, match="context_length is 41"):
            model(_ids(1, 1), cache=cache)


def test_a_cache_refuses_documents_and_gradients():
    model = Decoder(CONFIGS["qwen3"])
    ids, cache = _ids(1, 5), model.new_cache(1, 9)
    with pytest.raises(UserError, match="one document per row"):
        model(ids, cache=cache, documents=torch.zeros_like(ids))
    with pytest.raises(AssertionError, match="no_grad"):
        model(ids, cache=cache)


def test_training_on_one_batch_learns_it():
    model = Decoder(qwen3(**_shape(num_heads=3))).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    ids = _ids(4, 20)
    for _ in range(60):
        logits = model(ids[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # inductor's own imports
@pytest.mark.parametrize("with_documents", [False, True])
def test_the_training_step_compiles_as_one_graph(with_documents):
    model = Decoder(CONFIGS["qwen3"]).train()
    ids = _ids()
    documents = (torch.arange(37) // 9).expand(2, -1) if with_documents else None

    def loss() -> Tensor:
        return model(ids, documents=documents).logsumexp(-1).mean()

    expected = torch.autograd.grad(loss(), list(model.parameters()))
    actual = torch.autograd.grad(torch.compile(loss, fullgraph=True)(), list(model.parameters()))
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("with_documents", [False, True])
def test_the_training_step_traces_as_one_graph(with_documents):
    """Dynamo alone, without the C++ compiler: no Python in the step that breaks the graph."""
    model = Decoder(CONFIGS["gpt2" if with_documents else "qwen3"]).train()
    documents = (torch.arange(37) // 9).expand(2, -1) if with_documents else None
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    ids = _ids()
    torch.testing.assert_close(compiled(ids, documents=documents), model(ids, documents=documents))
