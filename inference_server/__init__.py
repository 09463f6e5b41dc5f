"""A gRPC inference server for slides, documents and lab text."""

__version__ = "0.1.0"
