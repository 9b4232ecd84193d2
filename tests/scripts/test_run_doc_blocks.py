"""The runner of the documents' code blocks runs what is marked, and says where it failed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "run_doc_blocks.py"
DOCUMENT = """\
# Title
<!-- run -->
```bash
echo 41 > count; groundup_marker=1
```

```bash
exit 1  # not marked, so not run
```
````text
<!-- run -->
```bash
exit 1  # inside another fence
```
````
<!-- run -->
```python
print(int(open("count").read()) + 1)
```
"""


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_doc_blocks", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_only_marked_blocks_are_found_with_their_lines(runner: ModuleType) -> None:
    blocks = list(runner.find_blocks(DOCUMENT))
    assert [(block.language, block.line) for block in blocks] == [("bash", 3), ("python", 17)]


def test_blocks_of_a_document_share_a_folder(
    runner: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "good.md"
    path.write_text(DOCUMENT)
    assert runner.main([str(path)]) == 0
    assert "2 code blocks in 1 documents, 0 failed" in capsys.readouterr().out
    assert [file.name for file in tmp_path.iterdir()] == ["good.md"]


def test_any_failing_command_fails_its_block(
    runner: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.md"
    path.write_text("\n<!-- run -->\n```bash\necho before\nfalse | true\necho after\n```\n")
    assert runner.main([str(path)]) == 1
    output = capsys.readouterr()
    assert f"FAILED {path}:3" in output.out
    assert "exit code 1\nbefore\n" in output.err and "after" not in output.err


def test_documents_without_a_marked_block_prove_nothing(
    runner: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bare.md"
    path.write_text("```bash\necho not marked\n```\n")
    assert runner.main([str(path)]) == 2
    assert "no block is marked" in capsys.readouterr().err


def test_the_readme_has_a_block_that_runs(runner: ModuleType) -> None:
    text = (SCRIPT.parents[1] / "README.md").read_text(encoding="utf-8")
    assert "groundup --help" in "".join(block.code for block in runner.find_blocks(text))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("<!-- run -->\nprose", "line 1: below"),
        ("<!-- run -->\n```rust\n```", "line 1: below"),
        ("a\n```bash\nx", "line 2: the fence is never closed"),
        ("<!-- run -->", "line 1: below"),
    ],
)
def test_a_mark_in_the_wrong_place_is_an_error(
    runner: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    complaint: str,
) -> None:
    path = tmp_path / "wrong.md"
    path.write_text(text)
    assert runner.main([str(path)]) == 2
    assert complaint in capsys.readouterr().err
