"""`python -m groundup` is the `groundup` command."""

from __future__ import annotations

import sys

from groundup.cli import main

if __name__ == "__main__":
    sys.exit(main())
