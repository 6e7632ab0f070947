"""Names, shapes and files of Hugging Face and TF1 checkpoints."""
