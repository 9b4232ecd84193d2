"""How a model's makers would have it sampled: by generation_config.json, GGUF keys, or their card.

All in the words of generation_config.json, the file that transformers keeps beside a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from groundup.files import read_json

FILE = "generation_config.json"
SETTINGS = (
    *("do_sample", "temperature", "top_k", "top_p", "typical_p", "min_p"),
    "repetition_penalty",
)
_GGUF = {"temp": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
_GGUF |= {"penalty_repeat": "repetition_penalty"}

# Of models whose files say nothing, by a part of their names.
_CARDS: dict[str, dict[str, Any]] = {
    # huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct, "How to use"
    "smollm2": {"do_sample": True, "temperature": 0.2, "top_p": 0.9},
}


def of_folder(folder: str | Path) -> dict[str, Any]:
    """What a model folder's own file recommends; empty where it recommends nothing."""
    path = Path(folder) / FILE
    found = read_json(path) if path.is_file() else {}
    return {key: found[key] for key in SETTINGS if found.get(key) is not None}


def of_gguf(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the general.sampling keys of a GGUF file recommend, else the card of its model."""
    keys = {name: f"general.sampling.{key}" for key, name in _GGUF.items()}
    found = {name: metadata[key] for name, key in keys.items() if key in metadata}
    return {"do_sample": True, **found} if found else of_card(metadata.get("general.basename"))


def of_card(name: object) -> dict[str, Any]:
    """What the card of a model of this name recommends; empty for a model not known here."""
    words = str(name).lower()
    return next((dict(card) for part, card in _CARDS.items() if part in words), {})
