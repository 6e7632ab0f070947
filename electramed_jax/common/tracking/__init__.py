"""Where metrics are written: metrics.jsonl, TensorBoard, trackers."""
