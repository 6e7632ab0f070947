"""Files on disk and in object stores, TFRecord rows, an HTTP client and a disk cache."""
