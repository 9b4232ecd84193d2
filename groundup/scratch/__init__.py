"""Teaching re-implementations: they import nothing from groundup, and nothing imports them."""
