"""How Pub/Sub is reached."""
