"""The model folder: whole round trips, transformers reads it, and damage is named."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from groundup.config import UserError
from groundup.models.decoder import Decoder
from groundup.models.folder import TEXT_STAGES, load_model, resolve_model, save_model
from groundup.models.presets import gpt2, llama, qwen3

META = {"stage": "base", "steps": 12, "val_bpb": 1.5, "nested": {"é": [1, None]}}


@pytest.fixture(params=["qwen3", "llama", "gpt2"])
def model(request, tiny_tokenizer) -> Decoder:
    preset = {"qwen3": qwen3, "llama": llama, "gpt2": gpt2}[request.param]
    config = preset(
        vocab_size=tiny_tokenizer.vocab_size, width=24, num_layers=2, num_heads=3, context_length=48
    )
    return Decoder(config).eval()


@pytest.fixture
def folder(tmp_path, tiny_model, tiny_tokenizer) -> Path:
    save_model(tmp_path / "model", tiny_model, tiny_tokenizer, META)
    return tmp_path / "model"


def test_round_trip(tmp_path, model, tiny_tokenizer):
    save_model(tmp_path / "m", model, tiny_tokenizer, META)
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "config.json",
        "generation_config.json",
        "groundup.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    loaded, tokenizer, meta = load_model(tmp_path / "m")
    assert meta == META
    assert loaded.config == model.config
    assert tokenizer.fingerprint == tiny_tokenizer.fingerprint
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    ids = torch.randint(0, 100, (2, 11))
    assert torch.equal(loaded(ids), model(ids))


def test_transformers_reads_the_folder(tmp_path, model, tiny_tokenizer):
    save_model(tmp_path, model, tiny_tokenizer, META)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "So we'll build: 12 stones, «naïve» beams, 🙂."
    ids = tiny_tokenizer.encode(text)
    assert their_tokenizer.encode(text, add_special_tokens=False) == ids
    with torch.no_grad():
        batch = torch.tensor([ids])
        torch.testing.assert_close(model(batch), theirs(batch).logits, atol=1e-5, rtol=1e-5)
    special = tiny_tokenizer.special
    assert theirs.config.bos_token_id == special["<|bos|>"]
    assert theirs.config.eos_token_id == special["<|end|>"]
    assert theirs.generation_config.eos_token_id == [special["<|end|>"], special["<|bos|>"]]


def test_a_shape_of_our_own_is_kept_under_our_names(tmp_path, tiny_model, tiny_tokenizer):
    config = dataclasses.replace(tiny_model.config, head_bias=True)
    model = Decoder(config).eval()
    torch.nn.init.normal_(model.head_bias)
    save_model(tmp_path, model, tiny_tokenizer, {})
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "groundup"
    loaded, _, _ = load_model(tmp_path)
    ids = torch.randint(0, 100, (1, 7))
    assert torch.equal(loaded(ids), model(ids))


def test_a_folder_without_groundup_json_is_read_by_its_hf_config(folder, tiny_model):
    (folder / "groundup.json").unlink()
    loaded, _, meta = load_model(folder)
    assert loaded.config == tiny_model.config and meta == {}


def test_dtype_on_load(folder):
    loaded, _, _ = load_model(folder, dtype="bfloat16")
    assert {p.dtype for p in loaded.parameters()} == {torch.bfloat16}
    assert loaded.rotary.full.cos.dtype == torch.float32


def test_loaded_weights_can_be_trained(folder):
    loaded, _, _ = load_model(folder)
    loaded.train()(torch.randint(0, 100, (1, 7))).sum().backward()
    assert loaded.embedding.weight.grad is not None


def test_a_failed_save_leaves_the_old_folder(folder, tiny_model, monkeypatch):
    import groundup.models.weights as module

    before = (folder / "model.safetensors").read_bytes()

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", full_disk)
    _, tokenizer, _ = load_model(folder)
    torch.nn.init.zeros_(tiny_model.embedding.weight)
    with pytest.raises(OSError, match="No space"):
        save_model(folder, tiny_model, tokenizer, {})
    assert (folder / "model.safetensors").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_tokenizer_of_another_size_is_refused_on_save(tmp_path, tiny_model, tiny_tokenizer):
    model = Decoder(dataclasses.replace(tiny_model.config, vocab_size=99))
    with pytest.raises(UserError, match="99 token ids, but the tokenizer"):
        save_model(tmp_path / "m", model, tiny_tokenizer, {})
    assert not (tmp_path / "m").exists()


def _edit_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


QUERY = "model.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(QUERY), f"lacks '{QUERY}'"),
        (lambda t: t.update(extra=torch.ones(2)), "has no use for 'extra'"),
        (
            lambda t: t.update({QUERY: t[QUERY][:, 1:].contiguous()}),
            f"'{QUERY}' of shape 40 × 23 instead of 40 × 24",
        ),
    ],
)
def test_wrong_tensors_are_named(folder, change, message):
    _edit_tensors(folder, change)
    with pytest.raises(UserError, match=message):
        load_model(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="damaged or cut off"):
        load_model(folder)


def test_an_absurd_header_is_refused_without_reading_it(folder):
    path = folder / "model.safetensors"
    path.write_bytes((2**60).to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(UserError, match="damaged or cut off"):
        load_model(folder)


def test_a_pickle_is_never_opened(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(UserError, match=r"pytorch_model.bin is a pickle"):
        load_model(folder)


@pytest.mark.parametrize("name", ["config.json", "groundup.json", "tokenizer.json"])
def test_broken_json_is_named(folder, name):
    if name == "config.json":
        (folder / "groundup.json").unlink()
    (folder / name).write_text('{"model_type": "qw')
    with pytest.raises(UserError, match=name):
        load_model(folder)


def test_a_foreign_tokenizer_is_refused(folder, tmp_path, tiny_model):
    from groundup.text.config import TokenizerConfig
    from groundup.text.train import train_tokenizer

    other = train_tokenizer(
        TokenizerConfig(kind="bpe", vocab_size=tiny_model.config.vocab_size), ["lorem ipsum " * 50]
    )
    other.save(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "tokenizer.json", folder / "tokenizer.json")
    with pytest.raises(UserError, match="not the tokenizer this model was trained with"):
        load_model(folder)


def test_a_folder_from_the_future_is_refused(folder):
    facts = json.loads((folder / "groundup.json").read_text())
    (folder / "groundup.json").write_text(json.dumps(facts | {"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        load_model(folder)


@pytest.fixture
def places(tmp_path, monkeypatch) -> Path:
    """A run with base and sft, an empty run, and a pulled model."""
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    for name in ("runs/demo/base", "runs/demo/sft", "runs/old/base", "cache/models/smollm2"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "runs/empty/base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("runs/demo", "runs/demo/sft"),
        ("runs/demo/base", "runs/demo/base"),
        ("runs/old", "runs/old/base"),
        ("smollm2", "cache/models/smollm2"),
    ],
)
def test_resolve_model(places, name, expected):
    assert resolve_model(name).resolve() == places / expected


def test_text_wants_the_model_of_texts(places):
    assert resolve_model("runs/demo", TEXT_STAGES).resolve() == places / "runs/demo/base"
    assert resolve_model("smollm2", TEXT_STAGES).resolve() == places / "cache/models/smollm2"
    shutil.rmtree(places / "runs/demo/base")
    assert resolve_model("runs/demo", TEXT_STAGES).resolve() == places / "runs/demo/sft"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("runs/dmeo", "no model 'runs/dmeo'. Did you mean 'runs/demo'"),
        ("smollm", "Did you mean 'smollm2'"),
        ("runs/empty", "no stage of it has finished"),
        ("runs/demo/base/config.json", "is a file"),
    ],
)
def test_resolve_model_helps(places, name, message):
    with pytest.raises(UserError, match=message):
        resolve_model(name)


def test_weights_in_several_files_are_read_together(folder, tiny_model):
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for part, held in parts.items():
        save_file({name: tensors[name] for name in held}, folder / part)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {name: part for part, held in parts.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    loaded, _, _ = load_model(folder)
    for name, tensor in tiny_model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    (folder / "b.safetensors").unlink()
    with pytest.raises(UserError, match=r"b.safetensors does not exist"):
        load_model(folder)


@pytest.mark.parametrize("part", ["../a.safetensors", "/etc/passwd", "weights.bin"])
def test_an_index_names_files_beside_it_alone(folder, part):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {QUERY: part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="not a .safetensors file beside it"):
        load_model(folder)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("num_hidden_layers", "cannot fill 1,000,000,000,000 layers"),
        ("max_position_embeddings", "context_length of 1,000,000,000,000"),
        ("vocab_size", "'model.embed_tokens.weight' of shape"),
        ("intermediate_size", "of shape"),
    ],
)
def test_an_absurd_config_is_refused_without_building_it(folder, field, message):
    (folder / "groundup.json").unlink()
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(data | {field: 10**12}))
    with pytest.raises(UserError, match=message):
        load_model(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h[QUERY].update(data_offsets=[0, 1 << 60]),
        lambda h: h[QUERY].update(shape=[1 << 40, 1 << 40]),
        lambda h: h[QUERY].update(dtype="X99"),
        lambda h: h.update({QUERY: 7}),
    ],
)
def test_a_hostile_header_is_refused(folder, change):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header)
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data[8 + size :])
    with pytest.raises(UserError, match="damaged or cut off"):
        load_model(folder)
