"""Extractive question answering: SQuAD and BioASQ files, windows, n-best answers, metrics."""
