"""From the lines of a card to its fields: rows as an eye sees them, labels in them, what stands behind each, and what it must look like."""
