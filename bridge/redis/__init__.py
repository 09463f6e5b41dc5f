"""How Redis is reached."""
