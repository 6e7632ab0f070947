"""The processes of a run: jax.distributed, signals and preemption, checks of the environment."""
