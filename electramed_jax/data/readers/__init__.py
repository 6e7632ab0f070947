"""Input files in any format to documents."""
