"""Text to packed rows to batches. It does not know `model/`: they meet at the manifest and at the batch."""
