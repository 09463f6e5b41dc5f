"""Slides: readers, tissue, tiling, analyses and artifacts."""
