"""Which engine serves a model: candidates are compared with the reference and timed against each other, and what was found is kept."""
