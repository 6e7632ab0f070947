"""A whole fine-tuning run: task, seeds, stages, results, predictions."""
