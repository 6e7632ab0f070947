"""No-domain helpers: errors, config I/O, tree rules, named RNG, console, step timer."""
