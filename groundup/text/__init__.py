"""Text to ids and back: tokenizers, their training, and the chat format."""
