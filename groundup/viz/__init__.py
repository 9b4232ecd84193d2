"""Every picture, drawn from the real objects."""
