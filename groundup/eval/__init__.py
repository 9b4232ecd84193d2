"""How good a model is: bits per byte and other measures over held-out text."""
