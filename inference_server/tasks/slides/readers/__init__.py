"""Reads slides: one port, and an adapter for each family of files."""
