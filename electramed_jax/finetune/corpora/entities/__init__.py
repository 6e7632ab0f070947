"""Corpora with named entities."""
