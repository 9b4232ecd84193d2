"""Language models from the ground up: raw text, tokenizer, training, chat.

Importing the package loads nothing heavy; import the module you need, and read its docstring first:
`text → data → (nn → models) → (optim, parallel) → train → tune → infer → eval → serve`.
"""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["__version__"]
