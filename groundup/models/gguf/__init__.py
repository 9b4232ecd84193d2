"""GGUF, the one-file format of llama.cpp: read, checked against hostile files, and written."""
