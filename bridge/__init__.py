"""A bridge from the queues you already have to the inference server, and back."""

__version__ = "0.1.0"
