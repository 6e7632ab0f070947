"""Benchmarks of a train step, the input pipeline and a checkpoint on this machine."""
