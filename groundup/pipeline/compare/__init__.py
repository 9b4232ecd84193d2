"""Three families of models on the same tasks, with equally many parameters."""
