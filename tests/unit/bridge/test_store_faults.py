"""What the errors of an object store mean."""

from __future__ import annotations

import pytest
from obstore.exceptions import GenericError

from bridge.errors import BridgeError, OverloadError, TransientError
from bridge.store_faults import kind_of


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (
            "Generic LocalFileSystem error: Unable to copy data: No space left on device (os error 28)\n\nDebug source:",
            OverloadError,
        ),
        ("Generic LocalFileSystem error: Unable to copy data: Disk quota exceeded (os error 122)\n\nDebug source:", OverloadError),
        ("Generic LocalFileSystem error: Unable to copy data: Input/output error (os error 5)\n\nDebug source:", TransientError),
        ("Generic LocalFileSystem error: Unable to create dir /a (os error 28): Not a directory (os error 20)\n", TransientError),
        ("Generic S3 error: Error performing PUT /a (os error 28)\n - Server returned non-2xx status code: 500", TransientError),
    ],
    ids=["no space", "quota", "broken disk", "name of a folder", "name of an object"],
)
def test_a_disk_that_is_full_is_told_from_what_else_a_folder_may_say(text: str, kind: type[BridgeError]) -> None:
    assert kind is kind_of(GenericError(text))
