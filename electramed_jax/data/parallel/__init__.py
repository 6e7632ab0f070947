"""How data stages run: process pool, Apache Beam, shuffle files."""
