"""The sides of bench/decode.py: each makes a function that writes tokens and says how long it took.

`write(batch)` continues a prompt of PROMPT tokens by TOKENS tokens, `batch` times at once, and
returns the seconds from the prompt to the last token.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

PROMPT, TOKENS = 64, 128
Write = Callable[[int], float]


def load(name: str) -> tuple[Any, Any]:
    """Model and tokenizer: a model folder, or "small", 30 million random weights."""
    from groundup.models.folder import load_model, resolve_model

    if name != "small":
        return load_model(resolve_model(name))[:2]
    from groundup.models.decoder import Decoder
    from groundup.models.presets import llama
    from groundup.text.config import TokenizerConfig
    from groundup.text.train import train_tokenizer

    torch.manual_seed(0)
    config = llama(
        vocab_size=8192,
        width=512,
        num_layers=8,
        num_heads=8,
        context_length=512,
        feed_forward_width=1376,
    )
    return Decoder(config).eval(), train_tokenizer(TokenizerConfig(kind="byte", vocab_size=263), [])


def prompt(vocab_size: int) -> list[int]:
    """PROMPT ids that every tokenizer has."""
    return torch.randint(10, min(vocab_size, 260), (PROMPT,)).tolist()


def groundup_side(name: str, format: str) -> tuple[Write, dict[str, Any]]:
    """Our own generation, sampled at temperature 0.8, through one of its readers."""
    from groundup.device import detect
    from groundup.infer.config import SamplingConfig
    from groundup.infer.generate import Reader, complete_many
    from groundup.infer.native import NativeReader, pack_decoder

    detect()
    model, tokenizer = load(name)
    ids, capacity = prompt(model.config.vocab_size), PROMPT + TOKENS
    config = SamplingConfig(max_tokens=TOKENS, temperature=0.8, seed=1)
    packed = None if format == "torch" else pack_decoder(model, format)  # type: ignore[arg-type]

    def write(batch: int) -> float:
        reader = Reader(model, capacity) if packed is None else NativeReader(packed, capacity)
        start = time.perf_counter()
        complete_many(model, tokenizer, ids, config, batch, stop_ids=(), reader=reader)
        return time.perf_counter() - start

    size = sum(p.nbytes for p in model.parameters()) if packed is None else packed.num_bytes
    return write, {"weight_bytes": size}


def transformers_side(name: str, format: str) -> tuple[Write, dict[str, Any]]:
    """`generate` of transformers, sampled likewise, with its default or its static cache."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    from groundup.device import detect
    from groundup.models.folder import save_model

    detect()
    ours, tokenizer = load(name)
    dtype = torch.bfloat16 if "bf16" in format else torch.float32
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "model", ours, tokenizer, {})
        model: Any = AutoModelForCausalLM.from_pretrained(Path(folder) / "model", dtype=dtype)
        model.eval()
    ids = torch.tensor([prompt(ours.config.vocab_size)])
    config = GenerationConfig(
        max_new_tokens=TOKENS,
        min_new_tokens=TOKENS,
        do_sample=True,
        temperature=0.8,
        top_k=0,
        pad_token_id=0,
        eos_token_id=-1,
        cache_implementation="static" if "static" in format else None,
    )

    def write(batch: int) -> float:
        start = time.perf_counter()
        with torch.inference_mode():
            model.generate(ids.repeat(batch, 1), generation_config=config)
        return time.perf_counter() - start

    return write, {"weight_bytes": sum(p.nbytes for p in model.parameters())}


def llama_cpp_side(name: str, format: str) -> tuple[Write, dict[str, Any]]:
    """llama.cpp through its Python package, sampled likewise; one stream."""
    from llama_cpp import Llama  # type: ignore[import-not-found]

    from groundup.device import detect
    from groundup.models.gguf.write import write_gguf

    policy = detect()
    model, tokenizer = load(name)
    folder = Path(tempfile.mkdtemp())
    path = folder / "model.gguf"
    write_gguf(path, model, tokenizer, "q8_0" if format == "q8_0" else "f16", name="bench")
    engine = Llama(
        str(path), n_ctx=PROMPT + TOKENS + 8, n_threads=policy.threads, verbose=False, seed=1
    )
    ids, size = prompt(model.config.vocab_size), path.stat().st_size

    def write(batch: int) -> float:
        assert batch == 1, "one stream"
        engine.reset()
        start = time.perf_counter()
        tokens = engine.generate(ids, temp=0.8, top_k=0, top_p=1.0, min_p=0.0)
        for _ in zip(range(TOKENS), tokens, strict=False):
            pass
        return time.perf_counter() - start

    return write, {"weight_bytes": size}


SIDES: dict[str, Callable[[str, str], tuple[Write, dict[str, Any]]]] = {
    "groundup": groundup_side,
    "transformers": transformers_side,
    "llama.cpp": llama_cpp_side,
}
