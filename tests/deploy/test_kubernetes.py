"""What lies in deploy/kubernetes: it builds, fits the schemas, is locked down, and says to the programs what they understand."""

from __future__ import annotations

import asyncio
import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from sqlalchemy import text

from bridge.settings import load as load_bridge
from bridge.settings_cards import load_card_worker
from bridge.settings_consensus import load_consensus
from bridge.settings_labs import load_lab_worker
from inference_server.service.security.permissions import Permission
from inference_server.service.security.tokens import read_tokens
from inference_server.settings import Settings as ServerSettings
from tests.support.bridge.platform_rows import insert, lab_store, meal, vital
from tests.support.bridge.trial_bridge import message
from tests.support.deploy.deploy_tools import deploy_python
from tests.support.deploy.manifests import Manifests, Resource, containers, only_these_variables, pod, pod_labels, program, selects
from tests.support.deploy.overlays import OVERLAYS, built, with_tls
from tests.support.inference_server.running_application import running_application
from tests.support.models.small_models import write_small_repository

ROOT = Path(__file__).parents[2]
# Names of variables that neither settings nor implied settings read, and who does.
READ_BY_OTHERS = {"REDIS_ADDRESS": "KEDA", "CUDA_CACHE_PATH": "CUDA", "AWS_REGION": "AWS' own library, in the server"}
SETTINGS = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "bridge").glob("settings*.py"))
# Which setting tells where the jobs of each kind of bridge come from.
SOURCES: dict[str, Callable[[], object]] = {
    "wsi": lambda: load_bridge().sqs_queues and load_bridge().wsi_bucket,
    "labs": lambda: load_bridge().sqs_queues and load_lab_worker().served and not load_lab_worker().rolls_up,
    "rollups": lambda: load_lab_worker().rolls_up and not load_bridge().sqs_queues,
    "cards": lambda: load_bridge().redis_queues == ("filot:ocr:gpu:queue", "filot:ocr:queue") and load_card_worker().served,
    "consensus": lambda: load_bridge().pubsub_subscriptions and load_consensus().served,
    "pubsub": lambda: load_bridge().pubsub_subscriptions and not load_consensus().served,
    "queue": lambda: load_bridge().queue == "jobs" and not load_bridge().sqs_queues,
}


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest) -> Manifests:
    return built(request.param)


def test_every_overlay_fits_the_schemas_and_what_does_not_would_be_found(tmp_path: Path) -> None:
    """In one run, since the schemas take long to load."""
    everything = [resource for overlay in OVERLAYS for resource in built(overlay).resources]
    everything += with_tls("gke", tmp_path).resources
    once = {json.dumps(resource, sort_keys=True): dict(resource) for resource in everything}.values()
    told = deploy_python(Path(__file__).with_name("schemas.py"), [*once, *_broken()])
    wrong = ("enviroment", "maxReplicas", "interval", "'grpc' is not of type 'integer'")
    assert [] == [name for name in wrong if not any(name in text for text in told)]
    assert [] == [text for text in told if not any(name in text for name in wrong)]


def _broken() -> list[Resource]:
    kinds = ("Deployment", "ScaledObject", "PodMonitor", "Service")
    resources = {kind: copy.deepcopy(dict(built("eks-gpu").of(kind)[0])) for kind in kinds}
    resources["Deployment"]["spec"]["template"]["spec"]["containers"][0]["enviroment"] = []
    resources["ScaledObject"]["spec"]["maxReplicas"] = 3
    resources["PodMonitor"]["spec"]["podMetricsEndpoints"][0]["interval"] = ["15s"]
    resources["Service"]["spec"]["ports"][0]["port"] = "grpc"
    return list(resources.values())


def test_containers_may_do_nothing_that_they_need_not(manifests: Manifests) -> None:
    for workload in manifests.workloads():
        specification = pod(workload)
        security = specification["securityContext"]
        assert (True, "RuntimeDefault") == (security["runAsNonRoot"], security["seccompProfile"]["type"])
        assert security["runAsUser"] >= 999
        assert (False, False) == (specification["automountServiceAccountToken"], specification["enableServiceLinks"])
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(specification)
        for container in containers(workload):
            wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
            assert container["securityContext"] == wanted, container["name"]
            assert "memory" in container["resources"]["limits"]
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    [namespace] = manifests.of("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_where_the_programs_write_there_is_room(manifests: Manifests) -> None:
    writable = {"lamina-bridge": {"/tmp", "/var/lib/lamina"}, "lamina-inference": {"/tmp", "/var/lib/lamina/engines"}}
    for workload in manifests.workloads():
        volumes = {volume["name"]: volume for volume in pod(workload)["volumes"]}
        mounts = {mount["mountPath"] for mount in program(workload)["volumeMounts"] if "emptyDir" in volumes.get(mount["name"], {})}
        assert writable.get(pod_labels(workload)["app.kubernetes.io/name"], set()) <= mounts
        bounded = [volume["name"] for volume in volumes.values() if "emptyDir" in volume and volume["emptyDir"].get("sizeLimit")]
        assert len(bounded) >= 2 or workload["kind"] == "StatefulSet"


def test_bridges_understand_their_variables(manifests: Manifests, monkeypatch: pytest.MonkeyPatch) -> None:
    assert manifests.bridges()
    for workload in manifests.bridges():
        kind = pod_labels(workload)["app.kubernetes.io/instance"]
        environment = manifests.environment(workload)
        with monkeypatch.context() as patch:
            only_these_variables(patch, environment)
            settings = load_bridge()
            assert SOURCES[kind](), kind
            assert settings.database.startswith(("postgresql://", "cloudsql://"))
            grace = pod(workload)["terminationGracePeriodSeconds"]
        assert grace >= settings.drain_seconds + 20, "what drains is not killed"
        assert settings.http == f"0.0.0.0:{program(workload)['ports'][0]['containerPort']}"
        assert [] == [name for name in environment if not _read(name)]


def _read(name: str) -> bool:
    """Whether settings have such a field, or name the variable."""
    fields = rf"\b{name}\b|^    ({name.removeprefix('BRIDGE_').lower()}|{name.lower()}): "
    return name in READ_BY_OTHERS or re.search(fields, SETTINGS, re.MULTILINE) is not None


def test_servers_understand_their_variables(manifests: Manifests, monkeypatch: pytest.MonkeyPatch) -> None:
    server = manifests.named("Deployment", "lamina-inference")
    environment = manifests.environment(server)
    only_these_variables(monkeypatch, environment)
    settings = ServerSettings.load()
    ours = {name.removeprefix("INFERENCE_").lower() for name in environment if name.startswith("INFERENCE_")}
    assert ours <= set(ServerSettings.model_fields)
    assert set(environment) - {f"INFERENCE_{name.upper()}" for name in ours} <= set(READ_BY_OTHERS)
    assert pod(server)["terminationGracePeriodSeconds"] >= settings.grace_seconds + settings.drain_seconds + 20
    assert settings.connection_age_seconds > 0, "else bridges never hear of servers that were added"
    ports = {port["name"]: port["containerPort"] for port in program(server)["ports"]}
    assert (f"0.0.0.0:{ports['grpc']}", f"0.0.0.0:{ports['http']}") == (settings.listen, settings.http)
    gpus = program(server)["resources"]["limits"].get("nvidia.com/gpu")
    assert (settings.device == "cuda:0") == (gpus == "1")


def test_a_bridge_outlives_the_server_that_drains(manifests: Manifests) -> None:
    """Both have the same time for one job; neither cuts it short for the other."""
    server = manifests.environment(manifests.named("Deployment", "lamina-inference"))
    for workload in manifests.bridges():
        assert float(manifests.environment(workload)["BRIDGE_DRAIN_SECONDS"]) <= float(server["INFERENCE_DRAIN_SECONDS"])


def test_the_server_takes_the_bridges_token_on_one_machine(tmp_path: Path) -> None:
    secrets = {name.rsplit("-", 1)[0]: keys for name, keys in built("local").secrets().items()}
    (tmp_path / "tokens").write_text(secrets["lamina-inference-tokens"]["tokens"])
    grant = read_tokens(tmp_path / "tokens").find(secrets["lamina-inference-token"]["token"])
    assert grant
    assert {Permission.SLIDES, Permission.DOCUMENTS, Permission.LABS} == grant.permissions


def test_what_is_named_is_there(manifests: Manifests) -> None:
    secrets = manifests.secrets()
    accounts = {each["metadata"]["name"] for each in manifests.of("ServiceAccount")}
    for workload in manifests.workloads():
        named = {volume["secret"]["secretName"] for volume in pod(workload).get("volumes", ()) if "secret" in volume}
        named |= {source["secretRef"]["name"] for source in program(workload).get("envFrom", ())}
        assert named <= set(secrets)
        assert pod(workload).get("serviceAccountName", next(iter(accounts))) in accounts
    for budget in manifests.of("PodDisruptionBudget"):
        chosen = [each for each in manifests.workloads() if selects(budget["spec"]["selector"], pod_labels(each))]
        assert [budget["metadata"]["name"]] == [each["metadata"]["name"] for each in chosen], "of one workload alone"
    for service in manifests.of("Service"):
        [chosen] = [each for each in manifests.workloads() if selects(service["spec"]["selector"], pod_labels(each))]
        assert service["spec"]["clusterIP"] == "None"
        ports = {str(port.get("name")) for port in program(chosen)["ports"]} | {port["containerPort"] for port in program(chosen)["ports"]}
        assert [] == [port for port in service["spec"]["ports"] if port.get("targetPort", port["port"]) not in ports]


def test_scaled_objects_name_what_is_there(manifests: Manifests) -> None:
    secrets = manifests.secrets()
    authentications = {each["metadata"]["name"]: each["spec"] for each in manifests.of("TriggerAuthentication")}
    targets = []
    for scaled in manifests.of("ScaledObject"):
        target = manifests.named("Deployment", scaled["spec"]["scaleTargetRef"]["name"])
        targets.append(target["metadata"]["name"])
        environment = manifests.environment(target)
        for trigger in scaled["spec"]["triggers"]:
            assert [] == [name for key, name in trigger["metadata"].items() if key.endswith("FromEnv") and name not in environment]
            if "authenticationRef" in trigger:
                for reference in authentications[trigger["authenticationRef"]["name"]].get("secretTargetRef", ()):
                    assert reference["key"] in secrets[reference["name"]]
    assert len(targets) == len(set(targets))
    if manifests.of("ScaledObject"):
        assert set(targets) == {each["metadata"]["name"] for each in manifests.workloads()}


def test_scaling_down_ends_no_bridge_with_a_long_job() -> None:
    """The pod autoscaler chooses pods without regard to their work; KEDA ends all when nothing waits or runs."""
    manifests = built("eks-gpu")
    for kind in ("wsi", "cards"):
        [scaled] = [each for each in manifests.of("ScaledObject") if each["spec"]["scaleTargetRef"]["name"] == f"lamina-bridge-{kind}"]
        assert scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"] == {"selectPolicy": "Disabled"}
        assert scaled["spec"]["minReplicaCount"] == 0
        counted = [{"scaleOnInFlight", "query"} & set(trigger["metadata"]) for trigger in scaled["spec"]["triggers"]]
        assert any(counted), "what is worked on must count, or KEDA ends all while a job runs"


def test_pods_are_reached_by_none_but_those_that_should(manifests: Manifests) -> None:
    policies = manifests.of("NetworkPolicy")
    [nothing] = [each for each in policies if not each["spec"]["podSelector"] and "Ingress" in each["spec"]["policyTypes"]]
    assert {"ingress", "egress"} & set(nothing["spec"]) == set()
    [to_server] = [each for each in policies if each["metadata"]["name"] == "inference"]
    [rule] = to_server["spec"]["ingress"]
    assert [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "lamina-bridge"}}}] == rule["from"]
    rules = [rule for each in policies for rule in (*each["spec"].get("ingress", ()), *each["spec"].get("egress", ()))]
    assert [] == [rule for rule in rules if not rule.get("ports") or not (rule.get("from") or rule.get("to"))]
    for workload in manifests.workloads():
        assert any(each["spec"]["podSelector"] and selects(each["spec"]["podSelector"], pod_labels(workload)) for each in policies)


def test_names_are_found_on_gke_by_cloud_dns_too() -> None:
    policy = built("gke").named("NetworkPolicy", "metadata-server")
    [rule] = [each for each in policy["spec"]["egress"] if {"protocol": "UDP", "port": 53} in each["ports"]]
    assert {"protocol": "TCP", "port": 53} in rule["ports"]
    assert [{"ipBlock": {"cidr": "169.254.169.254/32"}}] == rule["to"]


def test_cloud_images_have_a_registry_and_a_version() -> None:
    for overlay in ("eks-gpu", "gke"):
        images = {container["image"] for workload in built(overlay).workloads() for container in containers(workload)}
        assert [] == [image for image in images if not re.fullmatch(r"[a-z0-9.-]+\.[a-z]+/[a-z0-9/-]+:\d+\.\d+\.\d+", image)]


def test_gpus_are_asked_for_where_they_are() -> None:
    for overlay in ("eks-gpu", "gke"):
        specification = pod(built(overlay).named("Deployment", "lamina-inference"))
        assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in specification["tolerations"]
        assert specification.get("nodeSelector") or specification["affinity"]["nodeAffinity"]


def test_the_server_answers_the_probes_that_ask_it(tmp_path: Path) -> None:
    container = program(built("eks-gpu").named("Deployment", "lamina-inference"))
    probes = [container[name]["grpc"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert {8001} == {probe["port"] for probe in probes}
    write_small_repository(tmp_path / "models")

    requests = [health_pb2.HealthCheckRequest(service=probe.get("service", "")) for probe in probes]

    async def answers() -> list[int]:
        async with (
            running_application(tmp_path / "models", tmp_path) as application,
            grpc.aio.insecure_channel(application.grpc.address) as channel,
        ):
            return [(await health_pb2_grpc.HealthStub(channel).Check(request)).status for request in requests]

    assert [health_pb2.HealthCheckResponse.SERVING] * 3 == asyncio.run(answers())


def _queries(overlay: str, name: str) -> list[str]:
    scaled = built(overlay).named("ScaledObject", name)
    return [trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"] if trigger["type"] == "postgresql"]


async def test_postgresql_triggers_count_what_waits(new_postgres_database: Callable[[], str]) -> None:
    places = (("eks-gpu", "rollups"), ("eks-gpu", "cards"), ("gke", "queue"))
    queries = [query for overlay, kind in places for query in _queries(overlay, f"lamina-bridge-{kind}")]
    async with lab_store(new_postgres_database()) as store:

        async def counts() -> list[int]:
            return [next(iter((await store.database.look(text(query))).rows[0].values())) for query in queries]

        before = await counts()
        await store.submit(message("waits"))
        [_] = await store.queue.receive(limit=1, lease_seconds=60)
        await store.submit(message("waits too"))
        await vital(store, 1, "heart_rate", 60, "bpm", "2026-03-01T08:00")
        await vital(store, 1, "heart_rate", 61, "bpm", "2026-03-01T09:00", aggregation_status="categorized")
        await meal(store, 1, "2026-03-01", "lunch", 500, aggregation_status="failed")
        await store.database.change(text("INSERT INTO lamina.row_failures VALUES ('nutrition', 1, 5, NULL, 'parked')"), {})
        for key, state in {"runs": "running", "comes again": "waiting", "ended": "succeeded"}.items():
            await insert(store, "lamina.jobs", key=key, system="cards", request="{}", state=state, created_at=0)
        assert ([0, 0, 0], [1, 2, 2]) == (before, await counts())


def _resource_names(resources: list[Resource]) -> list[tuple[Any, ...]]:
    return [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in resources]


def test_nothing_is_made_twice_or_outside_the_namespace(manifests: Manifests) -> None:
    names = _resource_names(list(manifests.resources))
    assert len(names) == len(set(names))
    assert {"lamina"} == {namespace for kind, namespace, _ in names if kind != "Namespace"}
