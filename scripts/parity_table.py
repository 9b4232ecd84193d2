"""Write docs/parity.md: run every case of tests/parity, and put down what was found."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import torch
import transformers

from parity import table


def main() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    rows = {}
    for key in table.ROWS:
        rows[key] = table.measure(*key)
        rows[key].check()
    table.PATH.write_text(table.render(rows), encoding="utf-8")
    print(f"{len(rows)} rows in {table.PATH}")


if __name__ == "__main__":
    main()
