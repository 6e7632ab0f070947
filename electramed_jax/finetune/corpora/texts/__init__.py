"""Corpora with labelled texts and pairs of texts: relations, classification, similarity, yes/no questions."""
