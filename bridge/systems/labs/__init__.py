"""Lab tests: what the lab worker does."""
