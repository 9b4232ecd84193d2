"""tokenizer.json: foreign files that can be read give their own ids; others are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

from groundup.config import UserError
from groundup.text.split import PATTERNS
from groundup.text.tokenizer import Tokenizer, load_tokenizer

CORPUS = [
    "It's 1234 o'clock; we'll see 56  bananas, aaaa aaa aaaa!!! hahaha\n\n\tdef f(x):\n    x += 12",
    "Größe, café, naïve; Привет, мир! 日本語のテキスト、すもももももももものうち。 🙂🙂🙃",
]
BYTE_LEVEL = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
CUTS = {
    "gpt2": GPT2,
    "gpt4": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PATTERNS["gpt4"]), "isolated"), BYTE_LEVEL]
    ),
    "inverted": pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PATTERNS["gpt4"]), "removed", invert=True), BYTE_LEVEL]
    ),
    "digits": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2]),
}
TEXT = st.text(alphabet="aZé日² 1٣.,'’-_\n\r\t\u00a0\u2028🙂\u0301sh", max_size=40)


def foreign(cut: str, normalizer=None, special=("<|endoftext|>", "<|pad|>")):
    """A tokenizer as others train them: special tokens first, then letters, then merges."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = CUTS[cut]
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[AddedToken(name, special=True) for name in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


@pytest.fixture(scope="module", params=[*CUTS, "normalized"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "normalized":
        theirs = foreign("gpt4", normalizers.NFC())
    else:
        theirs = foreign(request.param)
    theirs.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": {"content": "<|endoftext|>"}}')
    return load_tokenizer(folder), theirs


@settings(deadline=None, max_examples=150, derandomize=True)
@given(text=TEXT)
def test_foreign_tokenizers_keep_their_ids(pair: tuple[Tokenizer, tokenizers.Tokenizer], text: str):
    ours, theirs = pair
    ids = ours.encode(text)
    assert ids == theirs.encode(text).ids
    assert ours.decode(ids) == theirs.decode(ids)


def test_foreign_special_tokens(pair: tuple[Tokenizer, tokenizers.Tokenizer], tmp_path: Path):
    ours, theirs = pair
    assert ours.vocab_size == theirs.get_vocab_size()
    assert dict(ours.special) == {"<|endoftext|>": 0, "<|pad|>": 1, "<|bos|>": 0}
    ours.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.fingerprint == ours.fingerprint
    saved = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    for text in CORPUS:
        assert saved.encode(text).ids == theirs.encode(text).ids == again.encode(text)
    assert saved.encode("a<|endoftext|>").ids[-1] == 0


def test_merges_written_the_old_way_are_read(tmp_path: Path) -> None:
    theirs = foreign("gpt2")
    data = json.loads(theirs.to_str())
    data["model"]["merges"] = [" ".join(merge) for merge in data["model"]["merges"]]
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    assert load_tokenizer(tmp_path).encode(CORPUS[0]) == theirs.encode(CORPUS[0]).ids


def broken(change) -> str:
    data = json.loads(foreign("gpt4").to_str())
    change(data)
    return json.dumps(data)


def swap_two_ids(data) -> None:
    vocabulary = data["model"]["vocab"]
    vocabulary["ha"], vocabulary["aa"] = vocabulary["aa"], vocabulary["ha"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ("[]", "should hold a JSON object"),
        ("{}", "not a valid tokenizer file"),
        ('{"model": {"type": "BPE", "vocab": 3}}', "not a valid tokenizer file"),
        (broken(lambda d: d["model"].update(type="Unigram")), "not a valid tokenizer file"),
        (broken(lambda d: d["model"]["vocab"].update({"▁the": 999})), "not byte-level"),
        (broken(lambda d: d["model"]["vocab"].pop("!")), "no token for 1 of the 256 bytes"),
        (broken(lambda d: d["model"]["vocab"].update(zzzz=999)), "order of its merges"),
        (broken(swap_two_ids), "order of its merges"),
        (broken(lambda d: d.update(pre_tokenizer={"type": "Whitespace"})), "cuts text in a way"),
        (broken(lambda d: d.update(pre_tokenizer=None)), "cuts text in a way"),
        (broken(lambda d: d.update(normalizer={"type": "Lowercase"})), "changes text in a way"),
    ],
)
def test_files_we_cannot_reproduce_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=message):
        load_tokenizer(tmp_path)


def test_a_folder_without_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no tokenizer: .*tokenizer.json does not exist"):
        load_tokenizer(tmp_path / "nowhere")


def test_saving_leaves_nothing_else_behind(tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    for _ in range(2):
        tiny_tokenizer.save(tmp_path / "deep" / "folder")
    names = {path.name for path in (tmp_path / "deep" / "folder").iterdir()}
    assert names == {"tokenizer.json", "tokenizer_config.json"}
