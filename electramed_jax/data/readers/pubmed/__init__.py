"""Reader of PubMed XML: splits a file into records, parses each, and converts it to documents."""
