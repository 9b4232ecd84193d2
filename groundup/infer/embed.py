"""Texts to vectors: near ones for texts that mean the same, by an encoder trained for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.config import UserError
from groundup.data.padding import batches_by_length, pad
from groundup.data.sources import read_lines
from groundup.files import read_json
from groundup.infer.generate import evaluating
from groundup.infer.load import load_for
from groundup.models.encoder import Encoder, pool
from groundup.models.encoder_config import EncoderConfig, Pooling
from groundup.models.folder import resolve_model
from groundup.text.framing import frame, pad_id, room
from groundup.text.tokenizer import Tokenizer, load_tokenizer

TOKENS_PER_BATCH = 4096


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """How a vector for a text is made of an encoder's output."""

    pooling: Pooling
    normalize: bool
    """Scale it to length 1, so that a dot product is a cosine."""
    max_tokens: int
    """Of a text, the marks around it included; what is beyond is not read."""


@torch.inference_mode()
def embed(model: Encoder, tokenizer: Tokenizer, texts: Sequence[str], how: Embedding) -> Tensor:
    """N texts -> (N, D) fp32 on the CPU, in their order. Long texts are cut at `how.max_tokens`."""
    limit = room(tokenizer, how.max_tokens)
    rows = [frame(tokenizer, ids[:limit].tolist()) for ids in tokenizer.encode_batch(texts)]
    vectors = torch.empty(len(rows), model.config.width)
    device = model.embedding.weight.device
    with evaluating(model):
        for batch in batches_by_length([len(row) for row in rows], TOKENS_PER_BATCH):
            padded = pad([rows[row] for row in batch], pad_id(tokenizer))
            ids, visible = (torch.from_numpy(array).to(device) for array in padded)
            pooled = pool(model.hidden(ids, visible), visible, how.pooling).float()
            vectors[batch] = (F.normalize(pooled, dim=-1) if how.normalize else pooled).cpu()
    return vectors


def embed_file(name: str | Path, path: str | Path) -> Iterator[list[float]]:
    """The vector of every line of a UTF-8 file, by a model folder or a pulled model's name."""
    texts, folder = read_lines(path), resolve_model(name)
    (model, tokenizer, *_), _ = load_for("embed", folder)
    how = read_embedding(folder, model.config)
    for vector in embed(model, tokenizer or load_tokenizer(folder), texts, how):
        yield vector.tolist()


def read_embedding(folder: str | Path, config: EncoderConfig) -> Embedding:
    """How texts are embedded, as sentence-transformers writes it; else as the config says."""
    folder = Path(folder)
    pooling, modules = config.pooling, []
    max_tokens = config.context_length
    if (folder / "modules.json").is_file():
        listed = json.loads((folder / "modules.json").read_text("utf-8"))
        modules = [str(module.get("type", "")).rpartition(".")[2] for module in listed]
    if (folder / "1_Pooling" / "config.json").is_file():
        data = read_json(folder / "1_Pooling" / "config.json")
        modes = [mode for mode, chosen in data.items() if "pooling_mode" in mode and chosen is True]
        known: dict[str, Pooling] = {
            "pooling_mode_mean_tokens": "mean",
            "pooling_mode_cls_token": "first",
        }
        if len(modes) != 1 or modes[0] not in known:
            raise UserError(f"{folder}/1_Pooling/config.json: {modes} is not supported.")
        pooling = known[modes[0]]
    if (folder / "sentence_bert_config.json").is_file():
        limit = read_json(folder / "sentence_bert_config.json").get("max_seq_length")
        max_tokens = min(max_tokens, limit) if isinstance(limit, int) else max_tokens
    normalize = "Normalize" in modules
    return Embedding(pooling=pooling, normalize=normalize, max_tokens=max_tokens)
