"""ELECTRA pre-training: step, loop, evaluation, alerts, workdir."""

from electramed_jax import make_callable

make_callable(__name__)  # electramed_jax.pretrain(...) is the function of the Python interface
