"""Floor 2b: the mathematics of ELECTRA. No files, no flags, no process ids."""
