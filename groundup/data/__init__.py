"""Ids to batches: corpora, cleaning, shards, packing, loaders and conversations."""
