"""C kernels for CPUs, compiled on first use, and the torch operations they stand behind."""
