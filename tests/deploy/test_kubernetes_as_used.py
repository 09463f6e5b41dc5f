"""What people make of deploy/kubernetes: with TLS, on an overlay of their own, and as its page says."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

from bridge.settings import load as load_bridge
from inference_server.settings import Settings as ServerSettings
from tests.support.deploy.deploy_tools import kustomized
from tests.support.deploy.manifests import Manifests, only_these_variables, pod, program
from tests.support.deploy.overlays import KUBERNETES, OVERLAYS, built, with_tls

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deploy-kubernetes.md").read_text(encoding="utf-8")


def test_with_tls_nothing_goes_in_the_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = with_tls("eks-gpu", tmp_path)
    server = manifests.named("Deployment", "lamina-inference")
    assert [] == [name for name in ("startupProbe", "readinessProbe", "livenessProbe") if "grpc" in program(server)[name]]
    environment = manifests.environment(server)
    with monkeypatch.context() as patch:
        only_these_variables(patch, environment)
        settings = ServerSettings.load()
    assert not settings.insecure
    assert settings.tls_certificate
    made = {each["spec"]["secretName"]: each["spec"] for each in manifests.of("Certificate")}
    mounted = {volume["secret"]["secretName"] for volume in pod(server)["volumes"] if "secret" in volume}
    assert mounted <= set(manifests.secrets()) | set(made)
    for workload in manifests.bridges():
        with monkeypatch.context() as patch:
            only_these_variables(patch, manifests.environment(workload))
            bridge = load_bridge()
        assert (True, False) == (bridge.inference_tls, bridge.inference_insecure)
        assert bridge.inference.partition(":")[0] in made["lamina-inference-tls"]["dnsNames"]


def test_the_page_tells_of_every_kind_of_bridge_and_what_scales_it() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", PAGE, re.MULTILINE))
    for folder in (KUBERNETES / "workers").iterdir():
        scaled = next(yaml.safe_load_all((folder / "autoscaling.yaml").read_text(encoding="utf-8")))["spec"]
        triggers = scaled["triggers"]
        assert [] == [trigger["type"] for trigger in triggers if f"`{trigger['type']}`" not in rows[folder.name]]
        told = triggers[0]["metadata"]
        [target] = [told[name] for name in ("queueLength", "targetQueryValue", "listLength", "value") if name in told]
        assert f"{int(target):,} " in rows[folder.name], folder.name


def test_the_page_names_what_secrets_must_hold() -> None:
    for overlay in OVERLAYS[:2]:
        for secret in built(overlay).of("ExternalSecret"):
            entries = [entry["remoteRef"] for entry in secret["spec"]["data"]]
            assert [] == [entry for entry in entries if f"`{entry['property']}`" not in PAGE]
            assert {entry["key"] for entry in entries} == {entries[0]["key"]}
            assert entries[0]["key"].removeprefix("lamina-bridge") in PAGE


def test_the_overlay_of_ones_own_that_the_page_shows_builds(tmp_path: Path) -> None:
    shown = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert shown
    patch = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "lamina-bridge-wsi", "annotations": {"a": "b"}}}
    (tmp_path / "configuration.yaml").write_text(yaml.safe_dump(patch))
    beside = os.path.relpath(ROOT, tmp_path.resolve())
    digest = "sha256:" + 64 * "0"
    (tmp_path / "kustomization.yaml").write_text(shown[1].replace("lamina/deploy", f"{beside}/deploy").replace("sha256:…", digest))
    manifests = Manifests(kustomized(tmp_path))
    assert program(manifests.named("Deployment", "lamina-inference"))["image"] == f"registry.example/lamina-inference@{digest}"
    assert manifests.of("Certificate")
    assert manifests.named("ServiceAccount", "lamina-bridge-wsi")["metadata"]["annotations"]["a"] == "b"


def test_the_policy_for_traces_that_the_page_shows_opens_the_collectors_port_to_our_pods(tmp_path: Path) -> None:
    shown = next(part for part in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "NetworkPolicy" in part)
    (tmp_path / "traces.yaml").write_text(shown)
    overlay = os.path.relpath(ROOT / "deploy" / "kubernetes" / "overlays" / "gke", tmp_path.resolve())
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump({"namespace": "lamina", "resources": [overlay, "traces.yaml"]}))
    manifests = Manifests(kustomized(tmp_path))
    policy = manifests.named("NetworkPolicy", "traces")
    assert policy["spec"]["podSelector"] == manifests.named("NetworkPolicy", "figures")["spec"]["podSelector"]
    [rule] = policy["spec"]["egress"]
    assert [(port["protocol"], port["port"]) for port in rule["ports"]] == [("TCP", 4317)]
