"""Why a push is not taken."""

from __future__ import annotations

from bridge.errors import PermanentError


class NotAuthenticatedError(PermanentError):
    """It carries no token of Google's, or one that is not for us or no longer valid."""


class NotAllowedError(PermanentError):
    """Its token is right, but it is somebody else's."""
