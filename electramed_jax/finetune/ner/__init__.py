"""Named entity recognition: CoNLL files, tag schemes, word windows, entity F1."""
