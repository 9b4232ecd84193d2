"""Process groups, and the one place that says how a model is spread over them."""
