"""Where a page has text: which way up it is, quads of lines, rows of cells, pages that bend."""
