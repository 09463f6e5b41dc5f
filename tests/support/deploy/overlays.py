"""What the overlays of deploy/kubernetes make."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import yaml

from tests.support.deploy.deploy_tools import kustomized
from tests.support.deploy.manifests import Manifests

KUBERNETES = Path(__file__).parents[3] / "deploy" / "kubernetes"
OVERLAYS = ("eks-gpu", "gke", "local")


@cache
def built(overlay: str) -> Manifests:
    return Manifests(kustomized(KUBERNETES / "overlays" / overlay))


def with_tls(overlay: str, folder: Path) -> Manifests:
    """An overlay as a user would make it on ours, with TLS."""
    beside = os.path.relpath(KUBERNETES, folder.resolve())
    made = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "lamina",
        "resources": [f"{beside}/overlays/{overlay}"],
        "components": [f"{beside}/components/tls"],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(made))
    return Manifests(kustomized(folder))
