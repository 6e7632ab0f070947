"""`electramed serve`: a local page and a JSON interface that apply a model to text."""
