"""Transports that jobs come from."""
