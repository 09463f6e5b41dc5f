"""Transports that results go to."""
