"""From a document's file to lines: the inference server, and Tesseract where that cannot read."""
