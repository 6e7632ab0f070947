"""Helpers without domain knowledge: errors, config I/O, tree rules, named RNG streams, console, step timer."""
