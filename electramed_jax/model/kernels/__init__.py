"""Pallas kernels for TPUs and GPUs, and when they are used."""
