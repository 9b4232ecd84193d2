"""One file per model family that Hugging Face knows: its `config.json` and tensors ↔ ours."""
