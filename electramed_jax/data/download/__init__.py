"""`electramed download`: PubMed's files from NLM's server."""
