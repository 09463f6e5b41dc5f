"""Slides: what the whole-slide worker behind the .NET platform does."""
