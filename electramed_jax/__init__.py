"""ELECTRAMed in JAX: pre-trains and fine-tunes biomedical ELECTRA models on PubMed text."""

__version__ = "0.1.0"
