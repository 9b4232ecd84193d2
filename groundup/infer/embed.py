"""Texts to vectors: near ones for texts that mean the same, by an encoder trained for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup.config import UserError
from groundup.data.padding import batches_by_length, pad
from groundup.infer.generate import evaluating
from groundup.models.encoder import Encoder, pool
from groundup.models.encoder_folder import Embedding, load_encoder, read_embedding
from groundup.models.folder import resolve_model
from groundup.text.wordpiece import WordPieceTokenizer

TOKENS_PER_BATCH = 4096


@torch.inference_mode()
def embed(
    model: Encoder, tokenizer: WordPieceTokenizer, texts: Sequence[str], how: Embedding
) -> Tensor:
    """N texts -> (N, D) fp32 on the CPU, in their order. Long texts are cut at `how.max_tokens`."""
    room = how.max_tokens - 2
    rows = [tokenizer.frame(ids[:room].tolist())[0] for ids in tokenizer.encode_batch(texts)]
    vectors = torch.empty(len(rows), model.config.width)
    device = model.embedding.weight.device
    with evaluating(model):
        for batch in batches_by_length([len(row) for row in rows], TOKENS_PER_BATCH):
            padded = pad([rows[row] for row in batch], tokenizer.special["[PAD]"])
            ids, visible = (torch.from_numpy(array).to(device) for array in padded)
            pooled = pool(model.hidden(ids, visible), visible, how.pooling).float()
            vectors[batch] = (F.normalize(pooled, dim=-1) if how.normalize else pooled).cpu()
    return vectors


def embed_file(name: str | Path, path: str | Path) -> Iterator[list[float]]:
    """The vector of every line of a UTF-8 file, by a model folder or a pulled model's name."""
    from groundup.device import DeviceConfig, detect

    try:
        texts = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}).") from None
    folder = resolve_model(name)
    policy = detect(DeviceConfig(dtype="float32", deterministic=False))
    model, tokenizer = load_encoder(folder, policy.device)
    how = read_embedding(folder, model.config)
    for vector in embed(model, tokenizer, texts, how):
        yield vector.tolist()
