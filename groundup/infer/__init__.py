"""Ids to ids: sampling, streaming and reference generation with a key/value cache."""
