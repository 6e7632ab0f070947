"""Floor 3: the sharded step, its optimiser and state, and the loop around them."""
