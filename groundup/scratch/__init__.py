"""Teaching re-implementations, which import nothing from groundup; one is measured by `inspect`."""
