"""What botocore knows of AWS, read without what the bridge never calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from botocore.loaders import JSONFileLoader, create_loader
from botocore.session import Session, get_session

# Those that are called, and those that find credentials. For others botocore follows the partition's rule, which is kept.
_SERVICES = frozenset({"sqs", "sns", "s3", "sts", "sso", "oidc", "portal.sso", "signin"})


def lean_session() -> Session:
    """A session whose list of endpoints holds the services that are called; whole, it takes several MB for as long as the bridge runs."""
    session = get_session()
    loader = create_loader(session.get_config_variable("data_path"))
    loader.file_loader = _LeanLoader()
    session.register_component("data_loader", loader)
    return session


class _LeanLoader(JSONFileLoader):  # type: ignore[misc]
    """Reads files as botocore does, but leaves the endpoints of other services out while it reads."""

    def load_file(self, file_path: str) -> Any:
        """`file_path`: without its ending. None when there is no such file."""
        file = Path(f"{file_path}.json")
        if file.name != "endpoints.json" or not file.exists():
            return super().load_file(file_path)
        return json.loads(file.read_bytes(), object_hook=_without_others)


def _without_others(read: dict[str, Any]) -> dict[str, Any]:
    if "partition" in read and "services" in read:
        read["services"] = {name: places for name, places in read["services"].items() if name in _SERVICES}
    return read
