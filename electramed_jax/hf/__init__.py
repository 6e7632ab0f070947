"""Export to and import from Hugging Face and TF1 checkpoints, model cards, upload."""
