"""Code that all fine-tuning tasks share: the Task protocol, split files, metrics, the initial encoder."""
