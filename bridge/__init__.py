"""A bridge from the queues you already have to the inference server, and back."""

import sys

__version__ = "0.1.0"

# structlog loads rich, 5 MB, for tracebacks in colour. Ours are JSON; the command line loads rich itself where it draws a table.
if "rich" not in sys.modules:
    sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
