"""Every picture and page, drawn from the real objects."""
