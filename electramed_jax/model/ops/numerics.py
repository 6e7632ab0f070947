"""Numeric constants that the layers, the kernels and the losses share."""

from __future__ import annotations

# Score of a masked entry: a key of another document, a padded vocabulary entry. Its softmax weight is exactly 0 in float32.
MASK_VALUE = -1e9

LAYER_NORM_EPSILON = 1e-12  # google-research/electra's (tf.contrib default), and Hugging Face's ELECTRA


# Odd polynomial whose tanh is erf(x/√2): at most 2.9e-6 off, and x·Φ(x) by 0.2 % of itself where x > -3.5, which is
# less than the rounding of 16 bits. Least squares, weighted towards the largest error; past x² = 25 it is held.
ERF_AS_TANH = (0.79786971, 0.036392285, -8.7825440e-05, -3.6693687e-05, 1.4250210e-06)


ERF_MAX_SQUARE = 25.0
