"""Readers of the JSON of scholarly services: S2ORC, CORD-19, Europe PMC, Semantic Scholar."""
