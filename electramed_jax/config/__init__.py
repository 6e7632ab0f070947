"""Every setting of pre-training and fine-tuning."""
