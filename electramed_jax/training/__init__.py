"""The trainer that pre-training and fine-tuning share: sharding, collectives, optimizer, state, checkpoints, metrics."""
