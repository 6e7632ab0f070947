"""One file per command of the command line: parse flags, call the library, print the result."""
