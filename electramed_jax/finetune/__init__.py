"""Floor 4: entity, relation and question-answering models on top of a pre-trained encoder, and their scores."""
