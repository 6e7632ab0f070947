"""ELECTRAMed in JAX: pre-train biomedical ELECTRA models from PubMed and hand them to Hugging Face."""

__version__ = "0.1.0"
