"""The stages of a run, one file each, and the report of what came out."""
