"""WordPiece vocabularies and the tokenizer."""
