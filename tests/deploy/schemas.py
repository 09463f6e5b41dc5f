"""Checks resources of Kubernetes, KEDA, cert-manager and the Prometheus operator against their schemas; runs where those are installed.

Reads a JSON list of resources from standard input, and prints a JSON list of complaints.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import kubernetes_validate
import pydantic

# The newest that EKS and GKE both run, and the oldest that this is meant for.
_VERSIONS = ("1.37", "1.33")
_MODELS = {
    "keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1",
    "cert-manager.io/v1": "cloudcoil.models.cert_manager.v1",
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
}


def complaints(resource: dict[str, Any]) -> list[str]:
    """What is wrong with a resource; of external-secrets.io no schema is to be had, and its tests look at it themselves."""
    name = f"{resource['kind']} {resource['metadata']['name']}"
    version = resource["apiVersion"]
    if version in _MODELS:
        return [f"{name}: {text}" for text in _by_model(resource, getattr(importlib.import_module(_MODELS[version]), resource["kind"]))]
    if version.startswith("external-secrets.io/"):
        return []
    found = []
    for kubernetes in _VERSIONS:
        try:
            kubernetes_validate.validate(resource, kubernetes, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            found.append(f"{name} in Kubernetes {kubernetes}: {error}")
    return found


def _by_model(resource: dict[str, Any], model: type[pydantic.BaseModel]) -> list[str]:
    try:
        read = model.model_validate(resource).model_dump(mode="json", by_alias=True, exclude_unset=True)
    except pydantic.ValidationError as error:
        return [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
    return list(_lost(resource, read, ""))


def _lost(given: Any, read: Any, place: str) -> list[str]:
    """What the schema does not know, and so left out."""
    if isinstance(given, dict) and isinstance(read, dict):
        unknown = [f"{place}.{name} is not known" for name in given if name not in read]
        return unknown + [text for name in given if name in read for text in _lost(given[name], read[name], f"{place}.{name}")]
    if isinstance(given, list) and isinstance(read, list):
        return [text for index, (one, other) in enumerate(zip(given, read, strict=True)) for text in _lost(one, other, f"{place}[{index}]")]
    return []


if __name__ == "__main__":
    json.dump([text for resource in json.load(sys.stdin) for text in complaints(resource)], sys.stdout)
