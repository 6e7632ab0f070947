"""`electramed vocab`: WordPiece vocabularies; the tokenizer."""
