"""Traces in the form of W3C: carried through every job, and told as spans where somebody listens."""
