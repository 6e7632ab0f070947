"""Relations, sentence pairs, classification and similarity."""
