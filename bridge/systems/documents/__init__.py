"""Documents: what the OCR worker does."""
