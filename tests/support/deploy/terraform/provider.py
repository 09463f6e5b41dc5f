"""A provider of Terraform that makes nothing: it knows what resources look like, and makes up what a cloud would tell of them.

Terraform attaches to it, as to a provider under a debugger: it would start one for each of its steps. Usage: provider.py SCHEMAS
Prints the port of each provider as JSON, and serves until its standard input is closed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import msgpack

sys.path.insert(0, str(Path(__file__).parent))
messages, services = grpc.protos_and_services("plugin.proto")  # type: ignore[attr-defined]

ACCOUNT = "123456789012"
REGION = "eu-west-1"
_NESTING = {"struct": 1, "list": 2, "set": 3, "map": 4}
_PROVIDER = {"aws": ("region",), "google": ("project", "region")}
# Terraform's way of writing a value that is not known yet.
_UNKNOWN = msgpack.ExtType(0, b"\0")
# What is told in a form that others read.
_TOLD = {
    "account_id": ACCOUNT,
    "partition": "aws",
    "region": REGION,
    "number": "987654321",
    "insecure_value": "ami-0123456789abcdef0",
}
# What is told in lists of objects: their type, and a value.
_STRUCTURES = {
    "aws_eks_node_group.resources": [
        b'["list",["object",{"autoscaling_groups":["list",["object",{"name":"string"}]]}]]',
        [{"autoscaling_groups": [{"name": "eks-nodes-0123"}]}],
    ]
}


class Provider(services.ProviderServicer):  # type: ignore[misc,name-defined]
    """Answers as a cloud in which everything goes well."""

    def __init__(self, name: str, known: Mapping[str, Any]) -> None:
        self._name = name
        ours = {kind: schema for kind, schema in known.items() if kind.removeprefix("data.").startswith(f"{name}_")}
        self._resources = {kind: schema for kind, schema in ours.items() if not kind.startswith("data.")}
        self._data = {kind.removeprefix("data."): schema for kind, schema in ours.items() if kind.startswith("data.")}

    def GetSchema(self, request: Any, context: Any) -> Any:  # noqa: N802
        settings = {
            setting: {"type": "string", "optional": True, "required": False, "computed": False} for setting in _PROVIDER[self._name]
        }
        return messages.Schemas(
            provider=_message({"attributes": settings, "blocks": {}}),
            resource_schemas={kind: _message(schema) for kind, schema in self._resources.items()},
            data_source_schemas={kind: _message(schema) for kind, schema in self._data.items()},
        )

    def PrepareProviderConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return messages.Answer(value=request.config)

    def ValidateResourceTypeConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return messages.Nothing()

    def ValidateDataSourceConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return messages.Nothing()

    def UpgradeResourceState(self, request: Any, context: Any) -> Any:  # noqa: N802
        return messages.Answer(value=messages.Value(json=request.raw_state.json))

    def Configure(self, request: Any, context: Any) -> Any:  # noqa: N802
        return messages.Nothing()

    def ReadResource(self, request: Any, context: Any) -> Any:  # noqa: N802
        return messages.Answer(value=request.value)

    def PlanResourceChange(self, request: Any, context: Any) -> Any:  # noqa: N802
        return messages.Answer(value=_planned(request.proposed, self._resources[request.type_name]))

    def ApplyResourceChange(self, request: Any, context: Any) -> Any:  # noqa: N802
        return messages.Answer(value=_made(request.type_name, request.proposed, self._resources[request.type_name]))

    def ReadDataSource(self, request: Any, context: Any) -> Any:  # noqa: N802
        return messages.Answer(value=_made(f"data.{request.type_name}", request.value, self._data[request.type_name]))

    def Stop(self, request: Any, context: Any) -> Any:  # noqa: N802
        return messages.Nothing()


def _message(schema: Mapping[str, Any]) -> Any:
    return messages.Schema(version=0, block=_block(schema))


def _block(schema: Mapping[str, Any]) -> Any:
    attributes = [
        messages.Schema.Attribute(
            name=name, type=json.dumps(told["type"]).encode(), **{key: told[key] for key in ("required", "optional", "computed")}
        )
        for name, told in sorted(schema["attributes"].items())
    ]
    nested = [
        messages.Schema.Nested(
            type_name=name,
            block=_block(told["block"]),
            nesting=_NESTING[told["nesting"]],
            min_items=1 if told["required"] and told["nesting"] != "struct" else 0,
            max_items=1 if told["single"] and told["nesting"] != "struct" else 0,
        )
        for name, told in sorted(schema["blocks"].items())
    ]
    return messages.Schema.Block(attributes=attributes, block_types=nested)


def _planned(value: Any, schema: Mapping[str, Any]) -> Any:
    """What only the cloud can tell is unknown until then."""
    content = msgpack.unpackb(value.msgpack, raw=False)
    if content is None:
        return value
    for name, told in schema["attributes"].items():
        if told["computed"] and content.get(name) is None:
            content[name] = _UNKNOWN
    return messages.Value(msgpack=msgpack.packb(content))


def _made(kind: str, value: Any, schema: Mapping[str, Any]) -> Any:
    """What became of a resource: all that was asked for, and what only the cloud can tell."""
    content = msgpack.unpackb(value.msgpack, raw=False)
    if content is None:
        return messages.Value(msgpack=value.msgpack)
    for name, told in schema["attributes"].items():
        if told["computed"] and (content.get(name) is None or isinstance(content[name], msgpack.ExtType)):
            # What might have been asked for and was not is mostly nothing.
            left_out = told["optional"] and told["type"] == "string" and name not in {"id", "arn", "name"}
            content[name] = "" if left_out else _told(kind, name, told["type"], content)
    return messages.Value(msgpack=msgpack.packb(_known(content)))


def _told(kind: str, name: str, form: Any, content: Mapping[str, Any]) -> Any:
    if form == "dynamic":
        # With its own type beside it.
        return _STRUCTURES.get(f"{kind}.{name}", [b'"string"', ""])
    if form != "string":
        return {"number": 0, "bool": False}.get(form) if isinstance(form, str) else ({} if form[0] == "map" else [])
    called = next((content[key] for key in ("name", "name_prefix", "family", "account_id") if isinstance(content.get(key), str)), kind)
    if name in {"arn", "id"} and kind == "aws_sqs_queue":
        return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{called}" if name == "arn" else f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{called}"
    if name == "url":
        return f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{called}"
    if name == "arn":
        return _arn(kind, called)
    if name == "member":
        return f"serviceAccount:{called}@project.iam.gserviceaccount.com"
    return _TOLD.get(name, called)


def _arn(kind: str, name: str) -> str:
    service, _, resource = kind.removeprefix("data.").removeprefix("aws_").partition("_")
    service = {"cloudwatch": "logs", "sns": "sns", "secretsmanager": "secretsmanager", "iam": "iam"}.get(service, service)
    path = {"sns": name, "secretsmanager": f"secret:{name}-AbCdEf", "iam": f"{resource}/{name}", "logs": f"log-group:{name}"}
    return f"arn:aws:{service}:{'' if service == 'iam' else REGION}:{ACCOUNT}:{path.get(service, f'{resource}/{name}')}"


def _known(value: Any) -> Any:
    """Nothing is unknown any more once it is made."""
    if isinstance(value, dict):
        return {key: _known(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_known(part) for part in value]
    return None if isinstance(value, msgpack.ExtType) else value


def main(schemas: str) -> None:
    """Serve each provider on a port of its own until nobody wants it any more."""
    known = json.loads(Path(schemas).read_text())
    servers = {name: grpc.server(ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1)]) for name in _PROVIDER}
    ports = {}
    for name, server in servers.items():
        services.add_ProviderServicer_to_server(Provider(name, known), server)
        ports[name] = server.add_insecure_port("127.0.0.1:0")
        server.start()
    print(json.dumps(ports), flush=True)
    sys.stdin.read()
    for server in servers.values():
        server.stop(0).wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
