"""Whole-slide images: messages and work."""
