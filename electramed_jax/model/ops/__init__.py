"""Functions that modules and kernels share."""
