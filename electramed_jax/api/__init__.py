"""Functions of the Python interface: pre-training, fine-tuning and export. The commands call them."""
