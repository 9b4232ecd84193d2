"""Looking inside: the machine, and what a model does on it."""
