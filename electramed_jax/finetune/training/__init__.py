"""Training of one seed of a fine-tuning run."""
