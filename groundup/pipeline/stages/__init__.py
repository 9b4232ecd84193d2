"""The stages of a run, one file each. A new file with a `STAGE` in it joins every run."""
