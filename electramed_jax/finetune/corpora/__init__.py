"""Registry of corpora: how the files of their authors become training, dev and test files, and with which settings."""
