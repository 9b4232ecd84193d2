"""Rewrite the file tree in README.md from the modules themselves: their first sentence each."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The order in which text becomes a chat, which is also the order to read the folders in.
FOLDERS = (
    "", "text", "data", "native", "nn", "models", "models/adapters", "models/gguf", "optim",
    "parallel", "train", "tune", "infer", "eval", "viz", "inspect", "pipeline", "pipeline/stages",
    "pipeline/compare", "pipeline/tasks", "serve", "scratch",
)  # fmt: skip
WIDTH = 75


def phrase(path: Path) -> str:
    """The first sentence of a module's docstring, without its full stop."""
    lines = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")
    return lines[0].rstrip(".:")


def shorten(text: str) -> str:
    """Cut a long sentence at a colon, semicolon or comma, else after a word."""
    if len(text) <= WIDTH:
        return text
    for mark in (":", ";", ","):
        head = text[: WIDTH + 1].rpartition(mark)[0]
        if len(head) > 30:
            return head
    return text[:WIDTH].rpartition(" ")[0] + "…"


def tree() -> str:
    """The whole tree, one line a file."""
    out = ["groundup/              the package; a folder imports only folders below it"]
    for folder in FOLDERS:
        path = ROOT / "groundup" / folder
        if not path.is_dir():
            continue
        indent = "  " * (len(Path(folder).parts) + 1)
        if folder:
            about = phrase(path / "__init__.py")
            out.append(f"{indent[2:]}{Path(folder).name + '/':<20} {about}")
        for module in sorted(path.glob("*.py")):
            if module.name != "__init__.py":
                out.append(f"{indent}{module.name:<18} {shorten(phrase(module))}")
    return "\n".join(out)


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    block = re.compile(r"```text\ngroundup/.*?```", re.DOTALL)
    readme.write_text(block.sub(lambda _: f"```text\n{tree()}\n```", text), encoding="utf-8")


if __name__ == "__main__":
    main()
