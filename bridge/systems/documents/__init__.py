"""Documents: messages and work."""
