"""Corpora with questions that a passage answers."""
