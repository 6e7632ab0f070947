"""Output of metrics: metrics.jsonl, TensorBoard and trackers such as Weights & Biases."""
