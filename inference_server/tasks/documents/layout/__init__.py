"""Lines in reading order: rows, columns, and labels with their values."""
