"""Optimizers: Adam, LAMB and Muon, their learning rates and layer-wise decay."""
