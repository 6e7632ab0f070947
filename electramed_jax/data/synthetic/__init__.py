"""Generated PubMed articles for tests and the quickstart."""
