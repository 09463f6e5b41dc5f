"""Documents: pages, text detection and recognition, reading order."""
