"""The trainer that pre-training and fine-tuning share."""
