"""The declaration of a corpus, helpers to read its original files, and published scores."""
