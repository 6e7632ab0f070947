"""The ELECTRA model: Flax NNX modules, masking and losses. No I/O and no process ids."""
