"""Floor 0: tools that know neither ELECTRA nor PubMed."""
