"""Floor 5: one module a command: flags in, one library call, a result out."""
