"""Connections to the database, and its migrations."""
