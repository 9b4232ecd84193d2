"""Tasks: any family of models trained on any task it can learn, and measured."""
