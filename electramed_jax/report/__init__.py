"""A page about one training run, or several side by side."""
