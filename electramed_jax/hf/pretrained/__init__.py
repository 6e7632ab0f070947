"""Application of pre-trained networks to text: replaced words, proposals for masked words, scores of texts."""
