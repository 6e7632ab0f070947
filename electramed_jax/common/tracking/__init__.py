"""Where metrics are written: metrics.jsonl, TensorBoard and trackers."""
