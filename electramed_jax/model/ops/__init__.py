"""Small functions and constants that modules and kernels share: dropout bits, remat names, batch axes."""
