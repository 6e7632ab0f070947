"""Reader of JATS, the XML of full-text articles: splits a file into articles, parses each, and converts it."""
