"""Ahead-of-time compilation of the train step for TPUs, and what the compiled program costs."""
