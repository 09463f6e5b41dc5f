"""Whole-slide images: readers, tissue, tiles, analyses, artifacts."""
