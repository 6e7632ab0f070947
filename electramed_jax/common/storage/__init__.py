"""Local and remote files, TFRecord rows, HTTP client, disk cache."""
