"""The packed dataset on disk and its input pipeline."""
