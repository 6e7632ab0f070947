"""Floor 2a: text to packed rows to batches. Never imports `model`."""
