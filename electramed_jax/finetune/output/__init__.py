"""Predictions as text: formats of files with entities, and HTML."""
