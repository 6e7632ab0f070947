"""Floor 4: our parameters to Hugging Face's names and back."""
