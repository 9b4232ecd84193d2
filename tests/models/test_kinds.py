"""Every kind of model in a folder: whole round trips, transformers reads T5's, damage is named."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from groundup.config import UserError
from groundup.models.encoder_config import HeadConfig, bert, modernbert
from groundup.models.encoder_decoder_config import t5, transformer
from groundup.models.export import export
from groundup.models.folder import kind_at, load_any, load_model, save_any
from groundup.models.image_config import MLPConfig, vit
from groundup.models.kinds import KINDS, build, kind_of
from groundup.models.presets import qwen3
from groundup.models.recurrent_config import RecurrentConfig
from groundup.models.vision_language_config import VisionLanguageConfig

SHAPE: dict[str, Any] = {
    "vocab_size": 331,  # padded beyond the tokenizer's 320 ids
    "width": 42,
    "num_layers": 2,
    "num_heads": 3,
    "context_length": 40,
}
VISION = vit(image_size=12, patch_size=3, channels=3, num_classes=0, width=36, num_layers=1)
CONFIGS: dict[str, Any] = {
    "decoder": qwen3(**SHAPE),
    "bert": bert(**SHAPE),
    "tags": modernbert(**SHAPE, head=HeadConfig(kind="token", num_classes=5)),
    "transformer": transformer(**SHAPE),
    "t5": t5(**SHAPE, head_width=10),
    "t5-gated": t5(**SHAPE, head_width=10, num_decoder_layers=1, gated=True, start_id=7),
    "lstm": RecurrentConfig(vocab_size=331, width=9, state_width=14, num_layers=2),
    "gru": RecurrentConfig(vocab_size=331, width=9, state_width=14, kind="gru"),
    "mlp": MLPConfig(image_size=5, channels=3, num_classes=7, hidden_widths=(11, 13)),
    "vit": dataclasses.replace(VISION, num_classes=7, pooling="mean"),
    "vlm": VisionLanguageConfig(vision=VISION, language=qwen3(**SHAPE), image_id=330),
    "vlm-queries": VisionLanguageConfig(
        vision=VISION, language=qwen3(**SHAPE), image_id=330, policy="queries", num_queries=3
    ),
}
META = {"classes": ["a", "é"], "steps": 3}


@pytest.fixture(params=CONFIGS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def made(config: Any) -> Any:
    model = build(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def inputs(config: Any) -> tuple[torch.Tensor, ...]:
    """What a model of this config can be called with."""
    ids, kind = torch.randint(0, 300, (2, 19)), kind_of(config).name
    if kind in ("mlp", "vit"):
        return (torch.randn(2, 3, config.image_size, config.image_size),)
    if kind == "encoder_decoder":
        return ids, torch.randint(0, 300, (2, 7))
    if kind == "vision_language":
        places = 3 if config.policy == "queries" else 16
        ids = torch.cat((ids[:, :2], torch.full((2, places), 330), ids), dim=1)
        return ids, torch.randn(2, 3, 12, 12)
    return (ids,)


def saved(folder: Path, name: str, tokenizer: Any) -> tuple[Any, Path]:
    model = made(CONFIGS[name])
    is_image = name in ("mlp", "vit")
    save_any(folder / name, model, None if is_image else tokenizer, META)
    return model, folder / name


@torch.no_grad()
def test_round_trip(name: str, tmp_path: Path, tiny_tokenizer) -> None:
    model, folder = saved(tmp_path, name, tiny_tokenizer)
    loaded = load_any(folder)
    assert (loaded.kind, loaded.meta) == (kind_of(model.config).name, META)
    assert kind_at(folder).name == loaded.kind
    assert loaded.model.config == model.config and not loaded.model.training
    assert (loaded.tokenizer is None) == (name in ("mlp", "vit"))
    state = loaded.model.state_dict()
    assert list(state) == list(model.state_dict())
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    given = inputs(model.config)
    assert torch.equal(loaded.model(*given), model(*given))
    again = load_any(folder, dtype="bfloat16").model
    assert {p.dtype for p in again.parameters()} == {torch.bfloat16}


def test_every_kind_is_told_what_else_to_do(name: str, tmp_path: Path, tiny_tokenizer) -> None:
    if name == "decoder":
        return
    _, folder = saved(tmp_path, name, tiny_tokenizer)
    (folder / "model.safetensors").unlink()  # the kind is known before a weight is read
    verb = KINDS[kind_at(folder).name].verbs[0]
    with pytest.raises(UserError, match=f"`groundup {verb}`"):
        load_model(folder)


def test_gguf_is_for_decoders(name: str, tmp_path: Path, tiny_tokenizer) -> None:
    if name == "decoder":
        return
    _, folder = saved(tmp_path, name, tiny_tokenizer)
    kind = kind_at(folder)
    with pytest.raises(UserError, match="GGUF is written of decoders alone") as error:
        export(str(folder), "gguf", tmp_path / "out.gguf")
    assert kind.what in str(error.value)
    assert str(error.value).endswith("Use --to hf." if kind.layouts else kind.advice)


@pytest.mark.parametrize("name", ["t5", "t5-gated"])
@torch.no_grad()
def test_transformers_reads_and_writes_our_t5(name: str, tmp_path: Path, tiny_tokenizer) -> None:
    model, folder = saved(tmp_path, name, tiny_tokenizer)
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(folder).eval()
    source, target = inputs(model.config)
    expected = theirs(input_ids=source, decoder_input_ids=target).logits
    torch.testing.assert_close(model(source, target), expected, atol=1e-4, rtol=1e-4)
    assert theirs.config.eos_token_id == tiny_tokenizer.special["<|end|>"]
    theirs.save_pretrained(tmp_path / "theirs")  # without groundup.json, without a tokenizer
    back = load_any(tmp_path / "theirs")
    assert (back.kind, back.tokenizer) == ("encoder_decoder", None)
    assert torch.equal(back.model(source, target), model(source, target))


@torch.no_grad()
def test_export_is_what_transformers_reads(name: str, tmp_path: Path, tiny_tokenizer) -> None:
    model, folder = saved(tmp_path, name, tiny_tokenizer)
    readers: dict[str, Any] = {
        "decoder": transformers.AutoModelForCausalLM,
        "bert": transformers.AutoModel,
        "tags": transformers.AutoModelForTokenClassification,
        "t5": transformers.AutoModelForSeq2SeqLM,
        "t5-gated": transformers.AutoModelForSeq2SeqLM,
    }
    if name not in readers:
        with pytest.raises(UserError, match="transformers has no architecture for this model"):
            export(str(folder), "hf", tmp_path / "out")
        return
    (folder / "modules.json").write_text("[]")  # sentence-transformers' own, beside an encoder
    export(str(folder), "hf", tmp_path / "out")
    assert (tmp_path / "out" / "modules.json").exists() == (name != "decoder")
    theirs = readers[name].from_pretrained(tmp_path / "out").eval()
    given = dict(zip(("input_ids", "decoder_input_ids"), inputs(model.config), strict=False))
    torch.testing.assert_close(theirs(**given)[0], model(*given.values()), atol=1e-4, rtol=1e-4)


def change(folder: Path, edit: Any) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors, sorted(tensors)[-1])
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda t, last: t.pop(last), "lacks '{}'"),
        (lambda t, last: t.update(surplus=torch.ones(2)), "surplus'"),
        (lambda t, last: t.update({last: t[last][1:].contiguous()}), "holds '{}' of shape"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    edit: Any, complaint: str, name: str, tmp_path: Path, tiny_tokenizer
) -> None:
    _, folder = saved(tmp_path, name, tiny_tokenizer)
    last = max(load_file(folder / "model.safetensors"))
    change(folder, edit)
    with pytest.raises(UserError) as error:
        load_any(folder)
    assert complaint.format(last) in str(error.value)
    assert "does not fit its config" in str(error.value)


def test_damage_and_pickles_are_refused(name: str, tmp_path: Path, tiny_tokenizer) -> None:
    _, folder = saved(tmp_path, name, tiny_tokenizer)
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for damaged in (whole[:-7], whole[:30], b"", (2**60).to_bytes(8, "little") + whole[8:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged or cut off"):
            load_any(folder)
    path.rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="pytorch_model.bin is a pickle"):
        load_any(folder)


def test_absurd_sizes_are_refused_without_building_them(
    name: str, tmp_path: Path, tiny_tokenizer
) -> None:
    _, folder = saved(tmp_path, name, tiny_tokenizer)
    facts = json.loads((folder / "groundup.json").read_text())
    for key in whole_numbers(facts["model"]):
        config = json.loads(json.dumps(facts["model"]))
        place = config
        for part in key[:-1]:
            place = place[part]
        place[key[-1]] = 10**15
        (folder / "groundup.json").write_text(json.dumps(facts | {"model": config}))
        with pytest.raises(UserError):
            load_any(folder)


FREE = {"start_id", "max_distance", "num_queries", "eps", "dropout"}


def whole_numbers(config: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The paths to every number of a config that a tensor's shape depends on."""
    found = []
    for key, value in config.items():
        if isinstance(value, dict):
            found += whole_numbers(value, (*path, key))
        elif type(value) is int and value > 0 and key not in FREE:
            found.append((*path, key))
    return found


def test_facts_that_contradict_each_other(tmp_path: Path, tiny_tokenizer) -> None:
    _, folder = saved(tmp_path, "t5", tiny_tokenizer)
    facts = json.loads((folder / "groundup.json").read_text())
    for changes, complaint in (
        ({"kind": "oracle"}, "no kind of model 'oracle'"),
        ({"kind": "encoder"}, "model_type = 't5', but groundup.json 'encoder'"),
        ({"format": 2}, "format 2"),
    ):
        (folder / "groundup.json").write_text(json.dumps(facts | changes))
        with pytest.raises(UserError, match=complaint):
            load_any(folder)
    (folder / "groundup.json").unlink()
    (folder / "config.json").write_text('{"model_type": "brt"}')
    with pytest.raises(UserError, match="model_type = 'brt'. Did you mean 'bert'"):
        load_any(folder)


def test_a_tokenizer_that_is_too_large_or_another_is_refused(
    tmp_path: Path, tiny_tokenizer
) -> None:
    config = RecurrentConfig(vocab_size=319, width=4, state_width=5)
    with pytest.raises(UserError, match="319 token ids, but the tokenizer 320"):
        save_any(tmp_path / "m", build(config), tiny_tokenizer, {})
    assert not (tmp_path / "m").exists()
    _, folder = saved(tmp_path, "lstm", tiny_tokenizer)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(UserError, match="tokenizer.json"):
        load_any(folder)
