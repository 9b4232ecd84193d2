"""A GGUF file -> our model and tokenizer."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from groundup.config import UserError
from groundup.models.decoder import Decoder
from groundup.models.gguf.architectures import ARCHITECTURES, read_config
from groundup.models.gguf.container import GGUFFile
from groundup.models.gguf.names import from_file, to_file
from groundup.models.gguf.vocabulary import from_metadata
from groundup.models.state_dict import mismatch
from groundup.text.tokenizer import Tokenizer, load_tokenizer


def read_gguf(path: str | Path) -> tuple[Decoder, Tokenizer, dict[str, Any]]:
    """The model in fp32 and evaluation mode, its tokenizer, and tokenizer_config.json's content.

    Quantised weights are exactly what their blocks stand for. Raises UserError, naming key, tensor
    or offset, for a file that is damaged, hostile, or of an architecture or format not known.
    """
    file = GGUFFile(path)
    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    try:
        config = read_config(file)
        tokenizer_json, tokenizer_config = from_metadata(file.metadata, config.vocab_size)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    with torch.device("meta"):
        model = Decoder(config)
    expected = {k: v.shape for k, v in to_file(config, model.state_dict()).items()}
    if problem := mismatch(expected, shapes):
        raise UserError(f"{path} does not fit its metadata: it {problem}.")
    tensors: dict[str, Tensor] = {name: torch.from_numpy(file.read(name)) for name in shapes}
    model.to_empty(device="cpu")
    architecture = ARCHITECTURES[file.metadata["general.architecture"]]
    model.load_state_dict(from_file(config, tensors, architecture))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, content in (
            ("tokenizer.json", tokenizer_json),
            ("tokenizer_config.json", tokenizer_config),
        ):
            (folder / name).write_text(json.dumps(content), encoding="utf-8")
        try:
            tokenizer = load_tokenizer(folder)
        except UserError as error:
            raise UserError(f"{path}: {str(error).replace(str(folder), 'its')}") from None
    return model.eval(), tokenizer, tokenizer_config
