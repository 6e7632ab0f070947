"""Parts of an HTML page: colours, style sheet, escaped text and tables."""
