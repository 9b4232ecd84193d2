"""Datasets of the hub, with a stand-in for it: files or rows, and one sentence for trouble."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from groundup.config import UserError
from groundup.data.config import SourceConfig
from groundup.data.documents import Document
from groundup.data.sources import read_source

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
Fake = Callable[..., list[tuple[Any, ...]]]


def read(name: str, **options: Any) -> list[Document]:
    return list(read_source(SourceConfig(name=name, **options)))


def failure(name: str, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        read(name, **options)
    message = str(error.value)
    assert message.endswith((".", "?")) and "\n" not in message
    return message


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """`fake(files, rows, folder)` puts a dataset of these files and rows on the hub; returns a list
    that will hold the calls. `folder` is where the hub's library would put what it fetches."""

    def install(
        files: dict[str, list[str]] | Exception, rows: Any = (), folder: Path = Path()
    ) -> list[tuple[Any, ...]]:
        calls: list[tuple[Any, ...]] = []

        def builder(path: str, subset: str | None) -> Any:
            calls.append(("builder", path, subset))
            if isinstance(files, Exception):
                raise files
            return SimpleNamespace(config=SimpleNamespace(data_files=files))

        def load(path: str, subset: str | None, *, split: str, streaming: bool) -> Any:
            calls.append(("rows", path, subset, split, streaming))
            return iter(rows)

        def snapshot(repository: str, **options: Any) -> str:
            calls.append(("files", repository, options))
            return str(folder)

        datasets = SimpleNamespace(load_dataset_builder=builder, load_dataset=load)
        monkeypatch.setitem(sys.modules, "datasets", datasets)
        hub = SimpleNamespace(snapshot_download=snapshot)
        monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
        return calls

    return install


def test_a_whole_dataset_comes_as_files(fake: Fake, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    names = [f"data/train-{i}.parquet" for i in range(2)]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        parquet.write_table(
            pyarrow.table({"text": [f"{name} {i}" for i in range(3)]}), tmp_path / name
        )
    start = "hf://datasets/org/name@0a1b2c/"
    calls = fake({"train": [start + name for name in names], "test": ["x"]}, folder=tmp_path)
    documents = read("hf:org/name:small")
    assert [document.text for document in documents] == [
        f"{n} {i}" for n in names for i in range(3)
    ]
    assert documents[-1].id == "train-1.parquet:3"
    assert documents[-1].source == "hf:org/name:small"
    options = {"repo_type": "dataset", "revision": "0a1b2c", "allow_patterns": names}
    assert calls == [
        ("builder", "org/name", "small"),
        ("files", "org/name", options | {"max_workers": 4}),
    ]


def test_a_few_documents_are_streamed(fake: Fake) -> None:
    def endless() -> Any:
        yield from ({"text": "one"}, {"messages": CHAT})
        raise AssertionError("more was read than asked for")

    calls = fake({}, endless())
    first, second = read("hf:org/name", split="validation", max_documents=2)
    assert (first.source, first.id, first.text) == ("hf:org/name", "1", "one")
    assert second.messages == tuple(CHAT)
    assert calls == [("rows", "org/name", None, "validation", True)]


@pytest.mark.parametrize("files", [{}, None, {"train": ["hf://datasets/a/b@1/train.csv"]}])
def test_other_formats_are_streamed_whole(fake: Fake, files: Any) -> None:
    calls = fake(files, [{"text": "one"}, {"text": "two"}])
    assert [document.text for document in read("hf:a/b")] == ["one", "two"]
    assert [call[0] for call in calls] == ["builder", "rows"]
    fake(files, [{"text": "one"}])
    message = failure("hf:a/b", text_column="body", messages_column="x")
    assert "hf:a/b row 1 has neither a column 'body'" in message


def test_a_split_that_is_not_there(fake: Fake) -> None:
    fake({"train": ["a.parquet"], "validation": ["b.parquet"]})
    assert "no split 'valdation'. Did you mean 'validation'?" in failure(
        "hf:org/name", split="valdation"
    )


def test_an_unreachable_hub_is_one_sentence(fake: Fake) -> None:
    fake(ConnectionError("Couldn't reach 'org/name' on the Hub\nmore"))
    message = failure("hf:org/name")
    assert "(Couldn't reach 'org/name' on the Hub): check the name and the network" in message

    def broken() -> Any:
        yield {"text": "one"}
        raise RuntimeError  # without a word, in the middle

    fake({}, broken())
    assert "split train (RuntimeError)" in failure("hf:org/name", max_documents=3)


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    for count in (0, 5):
        assert "pip install 'groundup[hf]'" in failure("hf:org/name", max_documents=count)
    recipe = tmp_path / "hub.toml"
    recipe.write_text('size = 1\ndata.sources = [{ name = "hf:org/name" }]\n')
    words = ("speedrun", recipe, "--run", tmp_path / "run", "--device.device", "cpu")
    assert "Source hf:org/name needs datasets: run" in refused(*words)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_the_real_library_with_a_folder(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("datasets")
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for split, texts in (("train", ["one", "two"]), ("test", ["three"])):
        path = tmp_path / f"{split}.{suffix}"
        if suffix == "parquet":
            parquet.write_table(pyarrow.table({"text": texts}), path)
        else:
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    name = f"hf:{tmp_path}"
    assert [document.text for document in read(name)] == ["one", "two"]
    assert [document.text for document in read(name, split="test")] == ["three"]
    assert [document.text for document in read(name, max_documents=1)] == ["one"]
    assert "split" in failure(name, split="tost")
