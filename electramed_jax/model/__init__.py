"""Flax NNX modules, masking and losses of ELECTRA. No files, no flags."""
