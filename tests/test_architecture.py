"""The shape of the project: folder order, size and purpose of every file, cost of an import."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "groundup").rglob("*.py"))
LONGEST_FILE = 350
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_a_module_states_its_purpose_and_stays_short(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    purpose = (ast.get_docstring(ast.parse(source)) or "").split("\n")[0]
    assert len(purpose) > 15, "the first line of a module says what it is for"
    assert purpose[-1] in ".:`", "the first line of a module is one whole sentence"
    assert source.count("\n") <= LONGEST_FILE, "split the file: one idea, one home"


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES}), ids=relative)
def test_a_folder_is_a_package_without_code_in_its_init(folder: Path) -> None:
    init = folder / "__init__.py"
    assert init.exists()
    if folder.name != "groundup":
        body = ast.parse(init.read_text(encoding="utf-8")).body
        assert len(body) == 1, "an __init__.py holds a docstring and nothing else"


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT_IMPORTS, "--no-cache"], cwd=folder, capture_output=True, text=True, check=False
    )


def test_folders_import_only_folders_below_them() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        ("config.py", "import groundup.viz", "groundup.config is not allowed to import"),
        ("viz/style.py", "import groundup.scratch", "Illegal imports of protected package"),
        ("attic/__init__.py", "", "not listed as layers"),
    ],
)
def test_the_folder_order_is_really_enforced(
    tmp_path: Path, module: str, line: str, complaint: str
) -> None:
    shutil.copytree(ROOT / "groundup", tmp_path / "groundup")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    intruder = tmp_path / "groundup" / module
    intruder.parent.mkdir(exist_ok=True)
    intruder.write_text(f"{line}\n", encoding="utf-8")
    result = lint_imports(tmp_path)
    assert result.returncode == 1
    assert complaint in result.stdout


HEAVY = ("torch", "numpy", "tokenizers", "tiktoken", "transformers", "matplotlib", "pyarrow")


@pytest.mark.parametrize("module", ["groundup", "groundup.cli", "groundup.config"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import {module}, sys; print(*[name for name in {HEAVY} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []


def readme_tree() -> dict[str, str]:
    """Path -> phrase, from the README's fenced block that opens with `groundup/`."""
    block = re.search(
        r"^```(?:text)?\n(groundup/.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.S
    )
    assert block, "README.md shows the file tree in a fenced block that opens with groundup/"
    entries: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    for line in block[1].splitlines():
        name, _, phrase = line.strip().partition(" ")
        if not name:
            continue
        indent = len(line) - len(line.lstrip())
        while parents and parents[-1][0] >= indent:
            parents.pop()
        path = (parents[-1][1] if parents else "") + name
        entries[path] = phrase.strip()
        if name.endswith("/"):
            parents.append((indent, path))
    return entries


@pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="no README yet")
def test_the_readme_shows_every_file_with_a_phrase() -> None:
    tree = readme_tree()
    missing = [path for path in tree if not (ROOT / path).exists()]
    assert not missing, f"README.md lists files that do not exist: {missing}"
    shown = {relative(path) for path in MODULES if path.name != "__init__.py"}
    assert not shown - tree.keys(), f"README.md lacks {sorted(shown - tree.keys())}"
    silent = [path for path, phrase in tree.items() if not phrase]
    assert not silent, f"README.md says nothing about {silent}"
