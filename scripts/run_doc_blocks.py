"""Run the code blocks that Markdown documents mark as runnable, so that documentation cannot rot.

A block runs when the line above its fence is the comment `<!-- run -->` (readers never see it):

    <!-- run -->
    ```bash
    groundup --help
    ```

`bash` and `python` blocks are understood. Each block is a process of its own; the blocks of one
document run in order and share one temporary folder, which links to the project's recipes and
bench folders and is removed at the end. A block that fails or takes over five minutes is an error,
named by file and line; so are documents without a single marked block, which would prove nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINKED = ("recipes", "bench")
LIMIT_SECONDS = 300
# `-e -u -o pipefail`: a block fails when any of its commands does, not only the last.
COMMANDS = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
_FENCE = re.compile(r"^(`{3,})(\w*)\s*$")
_MARK = re.compile(r"^<!--\s*run\s*-->\s*$")


@dataclass(frozen=True)
class Block:
    """One runnable block: its language, its code, and the line its fence stands on."""

    language: str
    code: str
    line: int


def main(paths: list[str]) -> int:
    """Run every marked block of the given documents.

    1 if any failed; 2 if a mark is wrong, or none of the documents has one.
    """
    failures = total = 0
    for path in map(Path, paths):
        try:
            blocks = list(find_blocks(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            print(f"{path}: {error}", file=sys.stderr)
            return 2
        total += len(blocks)
        failures += run_document(path, blocks)
    if total == 0:
        print(f"no block is marked `<!-- run -->` in {', '.join(paths)}", file=sys.stderr)
        return 2
    print(f"{total} code blocks in {len(paths)} documents, {failures} failed")
    return min(failures, 1)


def find_blocks(text: str) -> Iterator[Block]:
    """The marked blocks of a document. ValueError when a mark stands above nothing runnable."""
    lines = [*text.splitlines(), ""]  # a mark on the last line has something wrong below it, too
    index, marked = 0, False
    while index < len(lines):
        fence = _FENCE.match(lines[index])
        if marked and not (fence and fence[2] in COMMANDS):
            raise ValueError(f"line {index}: below `<!-- run -->` goes a bash or python fence")
        if fence:
            ticks, start = fence[1], index + 1
            try:
                index = lines.index(ticks, start)
            except ValueError:
                raise ValueError(f"line {start}: the fence is never closed") from None
            if marked:
                yield Block(fence[2], "\n".join(lines[start:index]) + "\n", start)
        marked = bool(_MARK.match(lines[index]))
        index += 1


def run_document(path: Path, blocks: list[Block]) -> int:
    """Run a document's blocks in one temporary folder and report each; the number of failures."""
    failures = 0
    with tempfile.TemporaryDirectory(prefix="groundup-docs-") as folder:
        for name in LINKED:
            if (ROOT / name).exists():
                os.symlink(ROOT / name, Path(folder) / name)
        for block in blocks:
            start = time.perf_counter()
            problem = run_block(block, folder)
            status = "FAILED" if problem else "ok"
            print(f"{status:6} {path}:{block.line} {time.perf_counter() - start:.1f} s", flush=True)
            if problem:
                failures += 1
                print(problem, file=sys.stderr, flush=True)
    return failures


def run_block(block: Block, folder: str) -> str:
    """Run one block in `folder` with this environment's programs first on PATH; "" or the error."""
    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    try:
        result = subprocess.run(
            [*COMMANDS[block.language], block.code],
            cwd=folder,
            env={**os.environ, "PATH": search},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            timeout=LIMIT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"took more than {LIMIT_SECONDS} s"
    return "" if result.returncode == 0 else f"exit code {result.returncode}\n{result.stdout}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
