"""The processes of a run: jax.distributed, signals, preemption, checks of the environment."""
