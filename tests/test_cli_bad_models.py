"""Models that are damaged, wrong or made to do harm, as the command line meets them.

All of them in one process: each is refused with exit code 2 and one sentence that names the key or
the place, no code of theirs runs, and together they take no memory to speak of.
"""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from groundup.models.encoder_config import HeadConfig, bert
from groundup.models.encoder_decoder_config import t5
from groundup.models.folder import save_any
from groundup.models.gguf.write import write_gguf
from groundup.models.image_config import vit
from groundup.models.kinds import build
from groundup.models.presets import llama
from groundup.models.recurrent_config import RecurrentConfig
from groundup.text.tokenizer import Tokenizer

SHAPE: dict[str, Any] = {"width": 64, "num_layers": 2, "num_heads": 4, "context_length": 48}
VERBS: dict[str, list[str]] = {
    "decoder": ["generate", "--prompt", "The"],
    "encoder": ["classify", "--prompt", "The"],
    "encoder-decoder": ["generate", "--prompt", "The"],
    "recurrent": ["generate", "--prompt", "The"],
    "image": ["classify", "--image", "IMAGE"],
}
MEGABYTES = 40
HUGE = 10**12
RUN = """
import contextlib, io, json, re, sys
from groundup.cli import main

def peak():  # MiB
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

def run(words):
    out, error, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            main(words)
        except SystemExit as caught:
            code = caught.code
    return code, error.getvalue()

good, bad = json.load(open(sys.argv[1]))
fine = [run(words) for words in good]
before, found = peak(), {}
for name, words in bad.items():
    found[name] = (*run(words), peak())
print(json.dumps([fine, before, found]))
"""


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> str:
    """Change the tensors of a folder; returns the name of one of them, in the middle."""
    tensors = load_file(folder / "model.safetensors")
    key = sorted(name for name, tensor in tensors.items() if tensor.ndim == 2)[3]
    change(tensors) if change.__code__.co_argcount == 1 else change(tensors, key)
    save_file(tensors, folder / "model.safetensors")
    return key


def edit_header(folder: Path, change: Callable[[dict[str, Any], str], Any]) -> None:
    path = folder / "model.safetensors"
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header, sorted(header.keys() - {"__metadata__"})[3])
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data[8 + size :])


def cut_off(folder: Path) -> str:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    return "model.safetensors is damaged or cut off"


def absurd_header(folder: Path) -> str:
    path = folder / "model.safetensors"
    path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])
    return "model.safetensors is damaged or cut off"


def beyond_the_end(folder: Path) -> str:
    edit_header(folder, lambda header, key: header[key].update(data_offsets=[0, 1 << 60]))
    return "model.safetensors is damaged or cut off"


def absurd_shape(folder: Path) -> str:
    edit_header(folder, lambda header, key: header[key].update(shape=[1 << 40, 1 << 40]))
    return "model.safetensors is damaged or cut off"


def missing_key(folder: Path) -> str:
    return f"lacks '{edit_tensors(folder, lambda tensors, key: tensors.pop(key))}'"


def extra_key(folder: Path) -> str:
    edit_tensors(folder, lambda tensors: tensors.update({"surplus.weight": torch.ones(2)}))
    return "surplus.weight"


def wrong_shape(folder: Path) -> str:
    def change(tensors: dict[str, torch.Tensor], key: str) -> None:
        tensors[key] = tensors[key][:, 1:].contiguous()

    return f"'{edit_tensors(folder, change)}' of shape"


def unknown_architecture(folder: Path) -> str:
    (folder / "groundup.json").unlink()
    edit_json(folder / "config.json", model_type="mamba")
    return "Unknown architecture"


def absurd_config(folder: Path) -> str:
    facts = json.loads((folder / "groundup.json").read_text())
    model = facts["model"] | dict.fromkeys(
        [name for name in facts["model"] if name in ("num_layers", "num_decoder_layers")], HUGE
    )
    edit_json(folder / "groundup.json", model=model)
    return "cannot fill 1,000,000,000,00"


def absurd_width(folder: Path) -> str:
    facts = json.loads((folder / "groundup.json").read_text())
    wider = {"state_width": HUGE}
    if "feed_forward" in facts["model"]:
        wider = {"feed_forward": facts["model"]["feed_forward"] | {"width": HUGE}}
    edit_json(folder / "groundup.json", model=facts["model"] | wider)
    return "does not fit its config"


def a_pickle(folder: Path) -> str:
    (folder / "model.safetensors").rename(folder.parent / f"{folder.name}.kept")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Harm(str(folder / "harmed"))))
    return "pytorch_model.bin is a pickle"


def a_pickle_by_another_name(folder: Path) -> str:
    harm = pickle.dumps(Harm(str(folder / "harmed")), protocol=0)
    (folder / "model.safetensors").write_bytes(harm * 20)
    return "model.safetensors is damaged or cut off"


class Harm:
    """Unpickling it creates a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


DAMAGES: tuple[Callable[[Path], str], ...] = (
    cut_off, absurd_header, beyond_the_end, absurd_shape, missing_key, extra_key, wrong_shape,
    unknown_architecture, absurd_config, absurd_width, a_pickle, a_pickle_by_another_name,
)  # fmt: skip

GGUF_DAMAGES: dict[str, tuple[bytes, int, str, int, str]] = {
    "tensor out of bounds": (b"blk.1.attn_q.weight", 24, "<Q", 1 << 62, "'blk.1.attn_q.weight'"),
    "overlapping tensors": (b"blk.1.attn_q.weight", 24, "<Q", 0, "inside '"),
    "absurd tensor": (b"blk.1.attn_q.weight", 4, "<Q", 1 << 62, "'blk.1.attn_q.weight'"),
    "absurd count": (b"GGUF", 4, "<Q", 1 << 62, "tensor_count"),
    "absurd string": (b"general.architecture", 4, "<Q", 1 << 62, "at byte"),
    "absurd layers": (b"llama.block_count", 4, "<I", 2**31, "llama.block_count 2,147,483,648"),
    "absurd width": (b"llama.feed_forward_length", 4, "<I", 2**31, "of shape"),
    "missing tensor": (b"blk.1.attn_q.weight", -3, "3s", b"xxx", "blk.1.attn_q.weight"),  # type: ignore[dict-item]
}


@pytest.fixture(scope="module")
def models(tiny_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good model of every kind, a good GGUF file and an image."""
    folder = tmp_path_factory.mktemp("models")
    size = {"vocab_size": tiny_tokenizer.vocab_size}
    head = HeadConfig(kind="sequence", num_classes=3)
    configs: dict[str, Any] = {
        "decoder": llama(**size, **SHAPE),
        "encoder": bert(**size, **SHAPE, head=head),
        "encoder-decoder": t5(**size, **SHAPE, head_width=10),
        "recurrent": RecurrentConfig(**size, width=48, state_width=64, num_layers=2),
        "image": vit(image_size=8, patch_size=4, channels=1, num_classes=3, width=64),
    }
    for name, config in configs.items():
        tokenizer = None if name == "image" else tiny_tokenizer
        save_any(folder / name, build(config), tokenizer, {"classes": ["a", "b", "c"]})
    write_gguf(folder / "model.gguf", build(configs["decoder"]), tiny_tokenizer)
    Image.new("L", (8, 8), 99).save(folder / "image.png")
    return folder


def test_every_bad_model_is_refused_in_a_sentence(
    models: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def command(kind: str, folder: Path) -> list[str]:
        verb, *rest = VERBS[kind]
        return [verb, str(folder), *(w.replace("IMAGE", str(models / "image.png")) for w in rest)]

    good = [command(kind, models / kind) for kind in VERBS]
    good.append(["pull", str(models / "model.gguf"), "good"])
    bad, expected = {}, {}
    for kind in VERBS:
        for damage in DAMAGES:
            name = f"{kind}: {damage.__name__}"
            folder = shutil.copytree(models / kind, tmp_path / f"{kind}-{damage.__name__}")
            expected[name], bad[name] = damage(folder), command(kind, folder)
    whole = (models / "model.gguf").read_bytes()
    files = {f"gguf: cut off at {keep}": (whole[:keep], "cut off") for keep in (100, 5000, -1)}
    for name, (key, skip, form, value, words) in GGUF_DAMAGES.items():
        data = bytearray(whole)
        struct.pack_into(form, data, data.index(key) + len(key) + skip, value)
        files[f"gguf: {name}"] = bytes(data), words
    for number, (name, (data, words)) in enumerate(files.items()):
        path = tmp_path / f"{number}.gguf"
        path.write_bytes(data)
        expected[name], bad[name] = words, ["pull", str(path), "bad"]

    (tmp_path / "words.json").write_text(json.dumps([good, bad]))
    child = [sys.executable, "-c", RUN, str(tmp_path / "words.json")]
    done = subprocess.run(child, capture_output=True, text=True, check=True, timeout=250)
    fine, before, found = json.loads(done.stdout)
    assert all(not code for code, _ in fine), fine
    assert found.keys() == expected.keys()
    for name, (code, error, peak) in found.items():
        assert code == 2, (name, code, error)
        assert "Traceback" not in error, (name, error)
        last = error.rstrip("\n").splitlines()[-1]
        assert last.startswith("groundup: ") and len(last) < 800, (name, error)
        assert expected[name] in last, (name, last)
        assert peak - before < MEGABYTES, (name, peak - before, "megabytes")
    assert not list(tmp_path.rglob("harmed")), "code of a model ran"
    assert not (tmp_path / "cache" / "models" / "bad").exists()
