"""Readers of tables and JSON records with fields of any name: JSON, CSV, TSV, Parquet, Arrow, Hugging Face datasets."""
