"""Training of one seed: batches, model with a head, step, loop, workdir."""
