"""Every kind that writes, asked by the command line: what it reads first, and what comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import tokenizers.decoders
import tokenizers.models
import tokenizers.pre_tokenizers
import torch
import transformers

from groundup.cli import main
from groundup.data.pictures import read_picture
from groundup.infer.beam import beam_search, greedy_batch
from groundup.infer.config import SamplingConfig
from groundup.infer.generate import PlainReader, complete
from groundup.infer.prompts import request
from groundup.models.encoder_decoder_config import t5
from groundup.models.folder import Loaded, load_any, save_any
from groundup.models.image_config import vit
from groundup.models.kinds import build, kind_of
from groundup.models.presets import qwen3
from groundup.models.recurrent import RecurrentModel
from groundup.models.recurrent_config import RecurrentConfig
from groundup.models.vision_language_config import VisionLanguageConfig
from groundup.text.framing import frame

PROMPT = "the house grows"
GREEDY = SamplingConfig(temperature=0.0, max_tokens=14)


def made(config: Any, std: float = 0.5) -> Any:
    model = build(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return model


def recurrent(tokenizer: Any, kind: Any = "lstm") -> RecurrentConfig:
    return RecurrentConfig(
        vocab_size=tokenizer.vocab_size, width=9, state_width=17, num_layers=2, kind=kind
    )


def encoder_decoder(tokenizer: Any) -> Any:
    shape: dict[str, Any] = {"width": 24, "num_layers": 1, "num_heads": 2, "head_width": 10}
    start = tokenizer.special["<|bos|>"]
    return t5(vocab_size=tokenizer.vocab_size, context_length=30, start_id=start, **shape)


def vision_language(tokenizer: Any) -> VisionLanguageConfig:
    shape: dict[str, Any] = {"width": 24, "num_layers": 1, "num_heads": 2}
    return VisionLanguageConfig(
        vision=vit(image_size=6, patch_size=2, channels=3, num_classes=0, width=8, num_heads=2),
        language=qwen3(vocab_size=tokenizer.vocab_size, context_length=40, **shape),
        image_id=tokenizer.special["<|tool_output|>"],
    )


def loaded(config: Any, tokenizer: Any, **meta: Any) -> Loaded:
    return Loaded(made(config), tokenizer, kind_of(config).name, meta)


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_a_recurrent_model_generates_as_decoders_do(kind: Any, tiny_tokenizer) -> None:
    model = made(recurrent(tiny_tokenizer, kind))
    ids = tiny_tokenizer.encode(PROMPT)
    for sampling in (GREEDY, SamplingConfig(temperature=1.0, max_tokens=14, seed=3)):
        cached = complete(model, tiny_tokenizer, ids, sampling, ())
        plain = complete(model, tiny_tokenizer, ids, sampling, (), reader=PlainReader(model))
        assert cached.ids == plain.ids
    assert len(set(cached.ids)) > 1
    greedy = complete(model, tiny_tokenizer, ids, GREEDY, ()).ids
    assert greedy_batch(model, [ids, ids], max_tokens=14) == [greedy] * 2
    settings: dict[str, Any] = {"beams": 3, "max_tokens": 6}
    found = beam_search(model, ids, **settings)
    again = beam_search(model, ids, **settings, cached=False)
    assert [reply.ids for reply in found] == [reply.ids for reply in again]


@torch.no_grad()
def test_a_state_goes_on_in_pieces_and_back_to_the_beginning(tiny_tokenizer) -> None:
    model: RecurrentModel = made(recurrent(tiny_tokenizer))
    ids, cache = torch.randint(0, 300, (2, 13)), model.new_cache(2)
    pieces = [model.hidden(piece, cache=cache) for piece in ids.split([1, 5, 7], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), model.hidden(ids))
    assert cache.length == 13
    assert [cache.reachable(n) for n in (13, 12, 0)] == [13, 0, 0]
    turned = cache.select([1, 0])
    assert torch.equal(turned.state[0][:, 0], cache.state[0][:, 1])
    cache.truncate(0)
    torch.testing.assert_close(model.hidden(ids, cache=cache), torch.cat(pieces, 1))


def decoder(tokenizer: Any) -> Any:
    return qwen3(
        vocab_size=tokenizer.vocab_size, width=24, num_layers=1, num_heads=2, context_length=40
    )


@pytest.mark.parametrize("make", [recurrent, decoder])
def test_models_continue_or_answer_as_they_learnt_to(make: Any, tiny_tokenizer) -> None:
    config, special = make(tiny_tokenizer), tiny_tokenizer.special
    asked = request(loaded(config, tiny_tokenizer, kind_of_task="write"), PROMPT)
    ids = tiny_tokenizer.encode(PROMPT)
    assert asked.ids == [
        special["<|bos|>"], special["<|user|>"], *ids, special["<|end|>"], special["<|assistant|>"],
    ]  # fmt: skip
    assert asked.echo == ""
    asked = request(loaded(config, tiny_tokenizer, kind_of_task="continue"), PROMPT)
    assert (asked.ids, asked.echo) == ([special["<|bos|>"], *ids], PROMPT)


def test_an_encoder_decoder_answers_its_source(tmp_path, tiny_tokenizer, capsys) -> None:
    model = made(encoder_decoder(tiny_tokenizer))
    save_any(tmp_path / "m", model, tiny_tokenizer, {})
    command = ["generate", str(tmp_path / "m"), "--prompt", PROMPT]
    main([*command, "--greedy", "--max-tokens", "14"])
    greedy = capsys.readouterr().out
    source = frame(tiny_tokenizer, tiny_tokenizer.encode(PROMPT))
    given, start = model.given(torch.tensor([source])), [model.config.start_id]
    stop = {tiny_tokenizer.special[name] for name in ("<|end|>", "<|bos|>")}
    (ids,) = greedy_batch(given, [start], max_tokens=14, stop_ids=stop)
    assert whole(greedy) == whole(tiny_tokenizer.decode(ids))
    main([*command, "--beams", "4", "--max-tokens", "999"])
    best, *_ = beam_search(given, start, beams=4, max_tokens=30, stop_ids=stop, alpha=0.6)
    found = tiny_tokenizer.decode([id for id in best.ids if id not in stop])
    assert whole(capsys.readouterr().out) == whole(found)
    main([*command, "--samples", "2", "--seed", "1"])  # as far as positions go
    main([*command[:2], "--prompt", PROMPT * 40, "--greedy"])  # a source that is too long is cut


@torch.no_grad()
def test_t5_made_elsewhere_writes_what_transformers_writes(tmp_path, capsys) -> None:
    pieces = ["<pad>", "</s>", "<unk>", "▁", "▁the", "▁house", "s", "o", "e", "h", "t"]
    scored = [(piece, -0.1 * i) for i, piece in enumerate(pieces)]
    unigram = tokenizers.Tokenizer(tokenizers.models.Unigram(scored, unk_id=2))
    unigram.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    unigram.decoder = tokenizers.decoders.Metaspace()
    unigram.add_special_tokens(pieces[:3])
    shape = {"d_model": 24, "d_kv": 6, "d_ff": 40, "num_layers": 2, "num_heads": 4}
    config = transformers.T5Config(vocab_size=11, decoder_start_token_id=0, **shape)
    theirs = transformers.T5ForConditionalGeneration(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    theirs.save_pretrained(tmp_path)
    unigram.save(str(tmp_path / "tokenizer.json"))
    for text in ("the houses", "those", "the the"):
        source = torch.tensor([[*unigram.encode(text, add_special_tokens=False).ids, 1]])
        ids = theirs.generate(source, max_new_tokens=12, do_sample=False)[0].tolist()
        main(["generate", str(tmp_path), "--prompt", text, "--greedy", "--max-tokens", "12"])
        assert capsys.readouterr().out.strip() == unigram.decode(ids).strip()


def whole(text: str) -> str:
    """Without the character that a reply may end within."""
    return text.removesuffix("\n").rstrip("�")


def picture(path: Path) -> Path:
    image = pytest.importorskip("PIL.Image")
    values = np.random.default_rng(0).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    image.fromarray(values).save(path)
    return path


@torch.no_grad()
def test_a_vision_language_model_writes_about_a_picture(tmp_path, tiny_tokenizer, capsys) -> None:
    model = made(vision_language(tiny_tokenizer))
    save_any(tmp_path / "m", model, tiny_tokenizer, {})
    path = picture(tmp_path / "p.png")
    command = ["generate", str(tmp_path / "m"), "--image", str(path), "--greedy"]
    main([*command, "--max-tokens", "9"])
    said = capsys.readouterr().out
    special = tiny_tokenizer.special
    rows = [special["<|bos|>"], special["<|user|>"], *[model.config.image_id] * 9]
    rows += [special["<|end|>"], special["<|assistant|>"]]
    pixels = torch.from_numpy(read_picture(path, 3, 6)[None]) / 127.5 - 1
    prompt = len(rows)
    for _ in range(9):  # without a cache, everything read again
        logits = model.given(pixels)(torch.tensor([rows]))[0, -1]
        rows.append(int(logits[: tiny_tokenizer.vocab_size].argmax()))
    torch.testing.assert_close(
        model.given(pixels)(torch.tensor([rows[:prompt]])),
        model(torch.tensor([rows[:prompt]]), pixels),
    )
    ends = [i for i, id in enumerate(rows) if i >= prompt and id in (special["<|end|>"], rows[0])]
    assert whole(said) == whole(tiny_tokenizer.decode(rows[prompt : (ends or [None])[0]]))


def test_rows_may_share_a_picture_or_have_one_each(tiny_tokenizer) -> None:
    model = made(vision_language(tiny_tokenizer))
    pixels = torch.randn(2, 3, 6, 6)
    prompt = [7, *[model.config.image_id] * 9, 8]
    together = greedy_batch(model.given(pixels), [prompt] * 2, max_tokens=8)
    alone = [greedy_batch(model.given(p[None]), [prompt], max_tokens=8)[0] for p in pixels]
    assert together == alone
    shared = greedy_batch(model.given(pixels[:1]), [prompt] * 3, max_tokens=8)
    assert shared == [alone[0]] * 3


def test_mistakes_are_named(tmp_path, tiny_tokenizer, refused) -> None:
    save_any(tmp_path / "vlm", made(vision_language(tiny_tokenizer)), tiny_tokenizer, {})
    save_any(tmp_path / "lstm", made(recurrent(tiny_tokenizer)), tiny_tokenizer, {})
    save_any(tmp_path / "bare", made(encoder_decoder(tiny_tokenizer)), None, {})
    assert "--image FILE" in refused("generate", tmp_path / "vlm", "--prompt", "a")
    assert "vision-language" in refused("generate", tmp_path / "lstm", "--image", "a.png")
    assert "no tokenizer" in refused("generate", tmp_path / "bare", "--prompt", "a")
    many = ("generate", tmp_path / "lstm", "--beams", "2", "--samples", "2")
    assert "--samples" in refused(*many)
    assert "`groundup generate`" in refused("chat", tmp_path / "lstm", "--prompt", "a")
    assert load_any(tmp_path / "lstm").kind == "recurrent"


@pytest.mark.parametrize("beams", ["0", "-1", "257", "99999999"])
def test_beams_beyond_reason_are_refused_before_anything_is_printed(
    beams: str, tmp_path, tiny_tokenizer, capsys
) -> None:
    save_any(tmp_path / "lstm", made(recurrent(tiny_tokenizer)), tiny_tokenizer, {})
    with pytest.raises(SystemExit) as caught:
        main(["generate", str(tmp_path / "lstm"), "--prompt", PROMPT, "--beams", beams])
    printed = capsys.readouterr()
    assert (caught.value.code, printed.out) == (2, "")
    assert "--beams should be from 1 to 256, but is" in printed.err


@pytest.mark.parametrize("make", [recurrent, encoder_decoder, vision_language])
def test_inspect_prints_every_kind(make, tmp_path, tiny_tokenizer, capsys) -> None:
    model = made(make(tiny_tokenizer))
    save_any(tmp_path / "m", model, tiny_tokenizer, {})
    main(["inspect", str(tmp_path / "m")])
    out = capsys.readouterr().out
    assert f"{model.num_parameters():,}" in out and "Training FLOPs per token" in out
