"""Predictions of a fine-tuned model in the report: confusion matrix and list of errors."""
