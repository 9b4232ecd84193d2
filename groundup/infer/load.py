"""The model a verb of the command line asks for, ready to be used on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from groundup.config import require
from groundup.device import DeviceConfig, Policy, detect
from groundup.models.folder import STAGES, TEXT_STAGES, kind_at, load_any, resolve_model
from groundup.text.tokenizer import load_tokenizer


def load_for(verb: str, name: str | Path, text: bool = False) -> tuple[Any, Policy]:
    """A model by its folder or name, `Loaded` on the GPU where there is one, in fp32.

    Of a run: its chat model, or with `text` the one that was trained on text alone. Raises
    UserError, with what to do instead, for a kind of model the verb is not for.
    """
    folder = resolve_model(name, TEXT_STAGES if text else STAGES)
    kind = kind_at(folder)
    require(
        verb in (*kind.verbs, "inspect"),
        f"`groundup {verb}` does not apply to {folder}, which holds {kind.what}. {kind.advice}",
    )
    policy = detect(DeviceConfig(dtype="float32", deterministic=False))
    loaded = load_any(folder, policy.device)
    if loaded.tokenizer is None and verb in ("chat", "score"):
        loaded = loaded._replace(tokenizer=load_tokenizer(folder))  # says what is missing
    return loaded, policy
