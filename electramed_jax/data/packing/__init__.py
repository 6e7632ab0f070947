"""`electramed pack`: token ids to full rows in TFRecord shards."""
