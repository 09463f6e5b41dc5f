"""Writes what an image holds of Python's packages, as CycloneDX 1.6: python scripts/sbom.py requirements/gpu.txt > inference.cdx.json.

What the image's base brings is told by the builder, docker buildx build --sbom=true. The same lock gives the same bytes.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)\s*(?:;\s*([^\\]+?))?\s*\\?$")


def bill_of_materials(lock: Path) -> dict[str, Any]:
    """The bill of what a lock file pins. Raises `ValueError` where a line pins nothing, or a package has no hash."""
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = lock.read_text(encoding="utf-8")
    reference = f"{project['name']}@{project['version']}"
    root = {"type": "application", "name": project["name"], "version": project["version"], "bom-ref": reference}
    components = _components(text)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, text)}",
        "version": 1,
        "metadata": {"component": {**root, "licenses": [{"license": {"id": project["license"]}}]}},
        "components": components,
        "dependencies": [{"ref": reference, "dependsOn": [component["bom-ref"] for component in components]}],
    }


def _components(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if hashed := re.match(r"\s+--hash=sha256:([0-9a-f]{64})", line):
            found[-1]["hashes"].append({"alg": "SHA-256", "content": hashed[1]})
        elif pinned := _PINNED.match(line):
            found.append(_component(pinned[1], pinned[2], pinned[3] or ""))
        else:
            raise ValueError(f"{line!r} pins no package; expected name==version, as `make lock` writes it")
    if bare := [component["name"] for component in found if not component["hashes"]]:
        raise ValueError(f"{', '.join(bare)}: no hash; lock them by `make lock`")
    return found


def _component(name: str, version: str, marker: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
    reference = f"{purl}#{marker}" if marker else purl
    # One of the hashes is that of the file which was installed: wheels differ by machine.
    component: dict[str, Any] = {"type": "library", "bom-ref": reference, "name": name, "version": version, "purl": purl, "hashes": []}
    return component | ({"properties": [{"name": "lamina:only-where", "value": marker}]} if marker else {})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/sbom.py requirements/NAME.txt")
    json.dump(bill_of_materials(Path(sys.argv[1])), sys.stdout, indent=1)
    print()
