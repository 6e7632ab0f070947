"""The packed dataset on disk, and the input pipeline from it to batches."""
