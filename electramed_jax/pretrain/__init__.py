"""ELECTRA pre-training: step, loop, evaluation, alerts, workdir."""
