"""What all fine-tuning tasks share."""
