"""What resources of Terraform's providers look like, read out of the wheels that were generated from the providers' own schemas.

A provider is a program of several hundred MB that only its maker's registry has; the generated bindings name the same attributes and
blocks, with what is required and what is told, and come from the package registry.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.support.skipping import skip_or_fail

_ROOT = Path(__file__).parents[4]
_REQUIREMENTS = _ROOT / "requirements" / "terraform-schemas.txt"
_CACHE = _ROOT / ".cache" / "terraform"
_INSTALL_SECONDS = 180

_CLASS = re.compile(r"^export class (\w+) extends cdktf\.(\w+) \{$(.*?)^\}$", re.MULTILINE | re.DOTALL)
_ATTRIBUTE = re.compile(
    r"^  // (\w+) - computed: (true|false), optional: (true|false), required: (true|false)\n(.*?)(?=^  // \w+ - computed|^  // ====|\Z)",
    re.MULTILINE | re.DOTALL,
)
_HCL = re.compile(
    r"^ {4,8}(\w+): \{\n\s+value: .*\n\s+isBlock: (true|false),\n\s+type: \"(\w+)\",\n\s+storageClassType: \"(\w+)\",", re.MULTILINE
)
_SIMPLE = {
    "getStringAttribute": "string",
    "getNumberAttribute": "number",
    "getBooleanAttribute": "bool",
    "getListAttribute": ["list", "string"],
    "getNumberListAttribute": ["list", "number"],
    "getStringMapAttribute": ["map", "string"],
    "getNumberMapAttribute": ["map", "number"],
    "getBooleanMapAttribute": ["map", "bool"],
}


def schemas(types: Iterable[str]) -> Mapping[str, Any]:
    """Each type's attributes and blocks; data sources are named `data.…`. Skips the test where the wheels cannot be had; in CI it fails."""
    wanted = sorted(set(types))
    digest = hashlib.sha256((_REQUIREMENTS.read_text() + Path(__file__).read_text() + ",".join(wanted)).encode()).hexdigest()[:16]
    file = _CACHE / f"{digest}.json"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            read = _read(_installed(), wanted)
            file.write_text(json.dumps(read))
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def _installed() -> Path:
    folder = _CACHE / f"wheels-{hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:16]}"
    if (folder / ".installed").exists():
        return folder
    uv = Path(sys.executable).with_name("uv")
    command = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--require-hashes", "--target", folder]
    done = subprocess.run([*command, "-r", _REQUIREMENTS], capture_output=True, text=True, timeout=_INSTALL_SECONDS)
    if done.returncode:
        skip_or_fail(
            f"the schemas of Terraform's providers cannot be had; is the package registry within reach? {done.stderr.strip()[-300:]}"
        )
    (folder / ".installed").touch()
    return folder


def _read(folder: Path, wanted: list[str]) -> Mapping[str, Any]:
    sources = {_folder_of(name): name for name in wanted}
    found: dict[str, Any] = {}
    for archive in sorted(folder.glob("*/_jsii/*.tgz")):
        with tarfile.open(archive) as files:
            provider = archive.name.removeprefix("provider-").partition("@")[0]
            for member in files:
                path = member.name.removeprefix("package/lib/")
                name = sources.get(f"{provider}/{path.rpartition('/')[0]}")
                if name and path.endswith("/index.js"):
                    stream = files.extractfile(member)
                    assert stream is not None
                    found[name] = _schema(_original(stream.read().decode()))
    assert wanted == sorted(found), f"no schema of {sorted(set(wanted) - set(found))}"
    return found


def _folder_of(name: str) -> str:
    """Where the wheel keeps a type: aws/sqs-queue."""
    kind, _, rest = name.rpartition(".")
    provider, _, resource = rest.partition("_")
    return f"{provider}/{'data-' + provider + '-' if kind else ''}{resource.replace('_', '-')}"


def _original(compiled: str) -> str:
    """The source that was compiled; its comments say what is required."""
    encoded = compiled.rpartition("base64,")[2].strip()
    return str(json.loads(base64.b64decode(encoded))["sourcesContent"][0])


def _schema(source: str) -> Mapping[str, Any]:
    bodies = {name: (base, body) for name, base, body in _CLASS.findall(source)}
    root = next(name for name, (base, _) in bodies.items() if base in {"TerraformResource", "TerraformDataSource"})
    return _block(source, bodies, root)


def _block(source: str, bodies: Mapping[str, tuple[str, str]], name: str) -> Mapping[str, Any]:
    """`name`: a class of attributes."""
    body = bodies[name][1]
    blocks = _blocks(source, name, body)
    attributes: dict[str, Any] = {}
    nested: dict[str, Any] = {}
    for attribute, computed, optional, required, code in _ATTRIBUTE.findall(body):
        inner = re.search(r"new (\w+?)(OutputReference|List|MapList|Map)\(this, \"", code)
        told = {"computed": computed == "true", "optional": optional == "true", "required": required == "true"}
        if inner and blocks.get(attribute, ("",))[0] == "true":
            nested[attribute] = {
                "nesting": blocks[attribute][1],
                "single": inner[2] == "OutputReference",
                "required": told["required"],
                "block": _block(source, bodies, f"{inner[1]}OutputReference"),
            }
        else:
            attributes[attribute] = {**told, "type": "dynamic" if inner else _type(code)}
    return {"attributes": attributes, "blocks": nested}


def _blocks(source: str, name: str, body: str) -> Mapping[str, tuple[str, str]]:
    """Whether each is a block, and how it nests."""
    if bases := re.search(r"synthesizeHclAttributes\(\).*", body, re.DOTALL):
        text = bases[0]
    else:
        struct = name.removesuffix("OutputReference")
        function = f"{struct[0].lower()}{struct[1:]}ToHclTerraform"
        found = re.search(rf"^export function {function}\(.*?^\}}$", source, re.MULTILINE | re.DOTALL)
        text = found[0] if found else ""
    return {attribute: (block, nesting) for attribute, block, nesting, _ in _HCL.findall(text)}


def _type(code: str) -> Any:
    found = re.search(r"this\.(get\w+Attribute)\('", code)
    if not found or found[1] not in _SIMPLE:
        return "dynamic"
    kind = _SIMPLE[found[1]]
    # A set is told as a list of its elements.
    return ["set", kind[1]] if "Fn.tolist(" in code and isinstance(kind, list) else kind
