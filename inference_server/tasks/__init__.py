"""Tasks: what turns a request of a client into model calls, and back. They never import each other."""
