"""The sides of bench/train.py: one training step of ours, and of transformers' models, to call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Size:
    """One size of model and batch."""

    layers: int
    width: int
    heads: int
    context: int
    vocabulary: int
    rows: int

    @property
    def tokens(self) -> int:
        return self.rows * self.context


SIZES = {
    "s": Size(layers=6, width=384, heads=6, context=256, vocabulary=4096, rows=32),
    "m": Size(layers=8, width=512, heads=8, context=512, vocabulary=8192, rows=16),
    "tiny": Size(layers=2, width=64, heads=2, context=32, vocabulary=256, rows=4),
}


def groundup_side(size: Size, mode: str) -> tuple[Callable[[], object], dict[str, Any]]:
    """Our default model and the trainer's own step, on the policy measured for this machine."""
    from groundup.device import detect, seed_everything
    from groundup.models.decoder import Decoder
    from groundup.models.presets import qwen3
    from groundup.optim.build import build_optimizer
    from groundup.optim.config import OptimizerConfig, ScheduleConfig
    from groundup.optim.schedules import factor
    from groundup.train.config import TrainConfig
    from groundup.train.trainer import Trainer

    policy = detect()
    seed_everything(0)
    model = Decoder(
        qwen3(
            vocab_size=size.vocabulary,
            width=size.width,
            num_layers=size.layers,
            num_heads=size.heads,
            context_length=size.context,
        )
    ).to(policy.torch_device)
    config = OptimizerConfig() if mode == "default" else OptimizerConfig(kind="adamw")
    schedule = ScheduleConfig(kind="constant")
    trainer = Trainer(
        stage="bench",
        model=model,
        optimizer=build_optimizer(model, config, policy.compute_dtype),
        schedule=lambda step, total: factor(schedule, step, total),
        loader=RandomTokens(size),
        total_steps=10_000,
        clip_norm=config.clip_norm,
        config=TrainConfig(),
        policy=policy,
        roof_gflops=1.0,
        sink=NoLog(),
    )
    model.train()
    facts = {
        "parameters": model.num_parameters(),
        "flops_per_token": model.flops_per_token(size.context),
        "setting": policy.describe(),
    }
    return trainer.train_step, facts


def peer_side(size: Size, name: str, mode: str) -> tuple[Callable[[], object], dict[str, Any]]:
    """A model of transformers and the usual loop around it."""
    import contextlib

    import torch

    torch.manual_seed(0)
    model = peer_model(size, name, tuned=mode != "defaults")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    matrices = sum(
        parameter.numel()
        for key, parameter in model.named_parameters()
        if parameter.ndim == 2 and not any(table in key for table in ("wte", "wpe", "embed_tokens"))
    )
    linear = matrices + size.vocabulary * size.width  # the head is tied to the token table
    attention = 6 * size.layers * size.context * size.width
    facts = {
        "parameters": parameters,
        "flops_per_token": 6 * linear + attention,
        "setting": f"cpu, {mode}",
    }
    model.train()
    fused = None if mode == "defaults" else True
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=fused)
    call = model if mode == "defaults" else torch.compile(model)
    autocast = (
        torch.autocast("cpu", dtype=torch.bfloat16)
        if mode.endswith("bf16")
        else contextlib.nullcontext()
    )
    ids = torch.randint(0, size.vocabulary, (64, size.rows, size.context))
    count = 0

    def step() -> None:
        nonlocal count
        batch = ids[count % len(ids)]
        count += 1
        with autocast:
            loss = call(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, facts


def peer_model(size: Size, name: str, tuned: bool) -> Any:
    """The transformers model with our shape: as many heads and layers, as wide a feed-forward."""
    try:
        import transformers
    except ImportError:
        raise SystemExit("This compares with transformers: pip install 'groundup[hf]'.") from None
    from groundup.nn.config import gated_width

    if name == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=size.vocabulary,
            n_positions=size.context,
            n_embd=size.width,
            n_layer=size.layers,
            n_head=size.heads,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=None,
            eos_token_id=None,
            use_cache=not tuned,
        )
        return transformers.GPT2LMHeadModel(config)
    config = transformers.LlamaConfig(
        vocab_size=size.vocabulary,
        max_position_embeddings=size.context,
        hidden_size=size.width,
        intermediate_size=gated_width(size.width),
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        tie_word_embeddings=True,
        use_cache=not tuned,
    )
    return transformers.LlamaForCausalLM(config)


class RandomTokens:
    """A loader of random tokens; batches as a real one gives them."""

    def __init__(self, size: Size) -> None:
        import torch

        self.rows_per_step, self.length = size.rows, size.context
        self.steps_per_epoch = float("inf")
        self.ids = torch.randint(0, size.vocabulary, (64, size.rows, size.context + 1))

    def step(self, index: int) -> Any:
        return self.rows(index, 0, self.rows_per_step)

    def rows(self, index: int, start: int, stop: int) -> Any:
        from groundup.data.batch import Batch

        ids = self.ids[index % len(self.ids), start:stop]
        return Batch(inputs=ids[:, :-1].contiguous(), targets=ids[:, 1:].contiguous())


class NoLog:
    """A log that keeps nothing."""

    def write(self, row: Any) -> None:
        pass
