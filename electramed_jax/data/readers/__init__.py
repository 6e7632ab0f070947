"""Readers: input files and datasets of any supported format to `Document` objects."""
