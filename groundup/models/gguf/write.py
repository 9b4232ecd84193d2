"""Our model and tokenizer -> a GGUF file, in F16 or Q8_0."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np

from groundup.config import UserError
from groundup.models.decoder import Decoder
from groundup.models.gguf.architectures import architecture_of, to_metadata
from groundup.models.gguf.container import import_gguf
from groundup.models.gguf.names import to_file
from groundup.models.gguf.rope import rule_metadata
from groundup.models.gguf.vocabulary import to_metadata as vocabulary_metadata
from groundup.text.chat import CHAT_TEMPLATE, chat_of
from groundup.text.tokenizer import Tokenizer

Precision = Literal["f16", "q8_0"]
PRECISIONS = ("f16", "q8_0")


def write_gguf(
    path: str | Path,
    model: Decoder,
    tokenizer: Tokenizer,
    precision: Precision = "f16",
    name: str = "",
) -> None:
    """Write one file, whole or not at all. Vectors stay fp32, as llama.cpp wants them.

    Rows that do not divide into Q8_0's blocks of 32 are written as F16. Raises UserError when
    llama.cpp has no such architecture or tokenizer.
    """
    path, config = Path(path), model.config
    gguf = import_gguf(f"Writing {path}")
    if precision not in PRECISIONS:
        raise UserError(f"GGUF is written as {' or '.join(PRECISIONS)}, not {precision!r}.")
    architecture = architecture_of(config).name
    facts = to_metadata(config) | rule_metadata(config)
    vocabulary = vocabulary_metadata(tokenizer, config.vocab_size)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        part = Path(temporary) / path.name
        writer = gguf.GGUFWriter(part, architecture)
        writer.add_name(name or path.stem)
        writer.add_file_type(
            gguf.LlamaFileType.MOSTLY_F16 if precision == "f16" else gguf.LlamaFileType.MOSTLY_Q8_0
        )
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        for key, value in facts.items():
            _add(writer, key, value)
        _add_vocabulary(writer, tokenizer, vocabulary)
        for key, tensor in to_file(config, model.state_dict()).items():
            values = tensor.detach().float().cpu().numpy()
            kind = gguf.GGMLQuantizationType.F16
            if values.ndim == 1:
                kind = gguf.GGMLQuantizationType.F32
            elif precision == "q8_0" and values.shape[-1] % 32 == 0:
                kind = gguf.GGMLQuantizationType.Q8_0
            if kind == gguf.GGMLQuantizationType.F16:
                _check_range(key, values)
            writer.add_tensor(key, gguf.quants.quantize(values, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        with open(part, "rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)


def _add(writer, key: str, value: int | float | str | bool) -> None:
    """A key in the number format that llama.cpp reads it in."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_string(key, value)


def _add_vocabulary(writer, tokenizer: Tokenizer, vocabulary: dict) -> None:
    writer.add_tokenizer_model(vocabulary["model"])
    writer.add_tokenizer_pre(vocabulary["pre"])
    writer.add_token_list(vocabulary["tokens"])
    writer.add_token_types(vocabulary["token_type"])
    if vocabulary["model"] == "gpt2":
        writer.add_token_merges(vocabulary["merges"])
    else:
        writer.add_token_scores(vocabulary["scores"])
        writer.add_add_space_prefix(vocabulary["add_space_prefix"])
        writer.add_unk_token_id(vocabulary["unknown"])
    special = tokenizer.special
    if "<|bos|>" in special:
        writer.add_bos_token_id(special["<|bos|>"])
        writer.add_add_bos_token(False)  # our templates write it themselves
    if "<|end|>" in special:
        writer.add_eos_token_id(special["<|end|>"])
    try:
        template = chat_of(tokenizer).template or CHAT_TEMPLATE
    except UserError:
        return  # a tokenizer without a chat format: a model that only continues text
    writer.add_chat_template(template)


def _check_range(name: str, values: np.ndarray) -> None:
    largest = float(np.abs(values).max())
    if not largest < 65504:
        raise UserError(f"'{name}' holds the value {largest:g}, which F16 cannot express.")
