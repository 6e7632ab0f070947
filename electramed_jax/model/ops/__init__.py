"""Functional pieces that modules and kernels share."""
