"""Numeric constants that the layers, the kernels and the losses share."""

from __future__ import annotations

# Score or logit of a masked entry: a key of another document, a padded vocabulary entry. Its probability after a
# softmax is exactly 0 in float32.
MASK_VALUE = -1e9

LAYER_NORM_EPSILON = 1e-12  # google-research/electra's (tf.contrib default), and Hugging Face's ELECTRA

# Odd polynomial in x; its tanh approximates erf(x/√2). The error is at most 2.9e-6, and 0.2 % of x·Φ(x) for x > -3.5,
# which is less than the rounding of 16 bits. Fitted by least squares, weighted towards the largest error. x² is clipped
# at ERF_MAX_SQUARE.
ERF_AS_TANH = (0.79786971, 0.036392285, -8.7825440e-05, -3.6693687e-05, 1.4250210e-06)
ERF_MAX_SQUARE = 25.0
