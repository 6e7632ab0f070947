"""`electramed prepare`: filters, deduplicates, decontaminates and splits documents."""
