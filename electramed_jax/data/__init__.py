"""Data pipeline: text to packed rows to batches. Independent of `model/`: both use the manifest and the batch."""
