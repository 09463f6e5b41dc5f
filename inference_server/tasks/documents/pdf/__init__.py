"""PDF files by pdfium: their pages as pictures, the text that they hold, and text laid over them. Alone in importing pypdfium2."""
