"""Lab text: messages and work."""
