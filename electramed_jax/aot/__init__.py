"""Ahead-of-time compilation of the train step for TPUs, and a cost model of the compiled program."""
