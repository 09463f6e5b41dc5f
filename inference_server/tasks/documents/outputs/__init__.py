"""Files that are made of documents that were read: one module a format, each written page by page."""
