"""A run from a model that is there already: shape, tokenizer, chat format, weights; resuming."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from groundup.config import UserError
from groundup.files import read_json
from groundup.models.decoder import Decoder
from groundup.models.export import export
from groundup.models.folder import load_model, save_model
from groundup.models.presets import gpt2, llama
from groundup.models.pull import pull
from groundup.pipeline import run as run_module
from groundup.pipeline.recipe import ModelSection, RunConfig, load_recipe, run_config_type
from groundup.pipeline.run import speedrun
from groundup.pipeline.shape import model_shape, rows_per_step, settled_optimizer
from groundup.pipeline.start import row_length
from groundup.text.base import PieceTokenizer
from groundup.text.chat import render
from groundup.text.tokenizer import Tokenizer, from_vocabulary
from groundup.train.log import JsonLog

CHATML = """\
{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
NAMES = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<a>", "<b>", "<c>", "<d>")
ASK: list[Any] = [{"role": "user", "content": "Hi"}]

pytestmark = pytest.mark.usefixtures("known_roof")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Tokenizer) -> Path:
    """A Llama as others publish it: in bf16, with special tokens and a chat template of its own."""
    assert isinstance(tiny_tokenizer, PieceTokenizer)
    special = dict(zip(NAMES, tiny_tokenizer.special.values(), strict=True))
    vocabulary = dataclasses.replace(tiny_tokenizer.vocabulary, special=special)
    config = llama(
        vocab_size=tiny_tokenizer.vocab_size + 5,  # padded, as many are
        width=32,
        num_layers=2,
        num_heads=2,
        context_length=96,
        feed_forward_width=48,
    )
    folder = tmp_path_factory.mktemp("theirs") / "model"
    save_model(folder, Decoder(config).bfloat16(), from_vocabulary(vocabulary), {})
    (folder / "groundup.json").unlink()
    data = json.loads((folder / "tokenizer_config.json").read_text())
    del data["groundup"]
    data |= {"chat_template": CHATML, "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(data))
    return folder


@pytest.fixture(scope="module")
def recipe(theirs: Path, tiny_texts: Path) -> Path:
    path = theirs.parent / "tune.toml"
    path.write_text(
        f"""
        data.sources = [{{ name = "{tiny_texts}/chat.jsonl" }}]
        device = {{ device = "cpu", dtype = "float32", compile = "off", threads = 1 }}
        model = {{ start = "{theirs}", context_length = 64 }}
        shards.workers = 1
        evaluate = {{ prompts = ["The "], questions = ["Hi!"], follow_up = "" }}
        [sft]
        steps = 6
        rows_per_step = 4
        rate_scale = 10.0
        train = {{ log_every = 1, evaluate_every = 3, sample_every = 6 }}
        """
    )
    return path


@pytest.fixture(scope="module")
def tuned(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run of the recipe. Copy it before changing anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "roof_gflops", lambda policy: 100.0)
        return speedrun(load_recipe(recipe), tmp_path_factory.mktemp("tuned") / "run")


def _losses(run: Path, stage: str) -> list[float]:
    return [row["val_loss"] for row in JsonLog(run / "log.jsonl").rows()
            if row.get("stage") == stage and "val_loss" in row]  # fmt: skip


def _same_weights(first: Path, second: Path) -> bool:
    one, other = (load_model(folder)[0].state_dict() for folder in (first, second))
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_foreign_model_is_tuned_in_its_own_format_and_goes_out_again(
    tuned: Path, theirs: Path, tmp_path: Path
) -> None:
    run = tuned
    assert _same_weights(theirs, run / "base") and not _same_weights(theirs, run / "sft")
    assert read_json(run / "base" / "config.json")["dtype"] == "bfloat16"
    losses = _losses(run, "sft")
    assert losses[-1] < losses[0] - 0.1
    model, tokenizer, _ = load_model(run / "sft")
    assert model.config.context_length == 96  # what it was; only the rows were 64 long
    assert tokenizer.encode("So, 3 × 7?") == load_model(theirs)[1].encode("So, 3 × 7?")
    rendered = tokenizer.decode(render(tokenizer, ASK, reply=True).ids, special=True)
    assert rendered == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    report = read_json(run / "report.json")
    assert report["chats"][0][0]["content"] == "Hi!"
    assert report["model"]["parameters"] == model.num_parameters()
    import transformers

    out = export(str(run), "hf", tmp_path / "hf")
    ids = torch.randint(0, 300, (1, 9))
    with torch.no_grad():
        logits = transformers.AutoModelForCausalLM.from_pretrained(out).eval()(ids).logits
        torch.testing.assert_close(logits, model(ids), atol=1e-5, rtol=1e-5)
    assert transformers.AutoTokenizer.from_pretrained(out).chat_template == CHATML
    pull(str(export(str(run), "gguf", tmp_path / "m.gguf")), "again")


def test_it_resumes_and_notices_another_start(
    recipe: Path, theirs: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(tuned, tmp_path / "run"))
    speedrun(load_recipe(recipe), run)
    printed = capsys.readouterr().err
    assert "Pretrain (unchanged)" in printed and "conversations (unchanged)" in printed
    other = Path(shutil.copytree(theirs, tmp_path / "other"))
    model, tokenizer, meta = load_model(other, dtype="bfloat16")
    with torch.no_grad():
        model.embedding.weight.mul_(2)
    save_model(other, model, tokenizer, meta)
    speedrun(load_recipe(recipe, ["--model.start", str(other), "--sft.steps", "0"]), run)
    printed = capsys.readouterr().err
    assert "Get and clean the text (unchanged)" in printed and "Pretrain (unchanged)" not in printed
    assert _same_weights(other, run / "base") and not (run / "sft").exists()


def test_pretraining_goes_on_from_the_weights_when_asked_to(
    recipe: Path, theirs: Path, tmp_path: Path
) -> None:
    words = ["--pretrain.steps", "4", "--pretrain.rows-per-step", "2", "--sft.steps", "0"]
    pulled, _ = pull(str(theirs), "mine")
    run = speedrun(load_recipe(recipe, ["--model.start", "mine", *words]), tmp_path / "run")
    first, moved = load_model(pulled)[0], load_model(run / "base")[0]
    name = "blocks.0.attention.query.weight"
    start, end = first.state_dict()[name], moved.state_dict()[name]
    torch.manual_seed(1)
    random = Decoder(first.config).state_dict()[name]
    assert 0 < (end - start).norm() < 0.1 * (end - random).norm()
    rows = [row for row in JsonLog(run / "log.jsonl").rows() if row["stage"] == "pretrain"]
    assert rows[-1]["step"] == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model.width", "64"], "model.width = 64 contradicts model.start: .* has 32"),
        (["--model.family", "gpt2"], "model.family = 'gpt2' contradicts .* has 'llama'"),
        (["--size", "6"], "size = 6 contradicts model.start"),
        (["--model.context-length", "128"], "context_length is 128, but .* 96 tokens"),
        (["--tokenizer.vocab-size", "500"], "leave the recipe's tokenizer section out"),
        (["--model.start", "nothing"], "There is no model 'nothing'"),
    ],
)
def test_a_recipe_that_contradicts_the_model_is_refused(
    recipe: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        speedrun(load_recipe(recipe, words), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_it_has_may_be_said_again(recipe: Path) -> None:
    config = load_recipe(recipe, ["--model.width", "32", "--model.family", "llama"])
    assert model_shape(config, 0).width == 32


def test_a_run_starts_from_another_run_but_not_from_itself(
    recipe: Path, tuned: Path, tmp_path: Path
) -> None:
    again = load_recipe(recipe, ["--model.start", str(tuned), "--sft.steps", "0"])
    with pytest.raises(UserError, match="lies in this run's own folder"):
        speedrun(again, tuned)
    assert _same_weights(speedrun(again, tmp_path / "next") / "base", tuned / "sft")


def test_a_model_that_cannot_chat_is_refused_before_it_is_trained(
    recipe: Path, theirs: Path, tmp_path: Path
) -> None:
    mute = Path(shutil.copytree(theirs, tmp_path / "mute"))
    data = json.loads((mute / "tokenizer_config.json").read_text())
    (mute / "tokenizer_config.json").write_text(json.dumps({**data, "chat_template": ""}))
    words = ["--model.start", str(mute), "--pretrain.steps", "1000000"]
    with pytest.raises(UserError, match="cannot hold a chat"):
        speedrun(load_recipe(recipe, words), tmp_path / "run")


def test_rows_and_rates_suit_a_model_that_has_learned(theirs: Path) -> None:
    large = gpt2(vocab_size=97, width=64, num_layers=1, num_heads=1, context_length=9000)
    config: RunConfig = run_config_type()(model=ModelSection(start=str(theirs)))
    section = vars(config)["sft"]
    assert row_length(config.model, large) == 1024
    assert rows_per_step(config, section, large) == 8
    gentle = settled_optimizer(config, section, large).learning_rate
    short = dataclasses.replace(large, context_length=1024)
    scratch: RunConfig = run_config_type()()
    same = dataclasses.replace(section, rows_per_step=8)
    assert gentle == pytest.approx(0.1 * settled_optimizer(scratch, same, short).learning_rate)
