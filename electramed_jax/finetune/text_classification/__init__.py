"""Relations, classification and similarity: tables, inputs, labels."""
