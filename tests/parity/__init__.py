"""Ours beside torch.nn and transformers, with the same weights: the cases, and how they compare."""
