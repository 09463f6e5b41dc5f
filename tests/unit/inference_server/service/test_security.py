"""What the settings allow, and what they refuse before the server listens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inference_server.errors import ConfigurationError, PermissionMissing, Unauthenticated
from inference_server.service.security.access import Access, Identity
from inference_server.service.security.options import SecurityOptions, is_loopback, secure
from inference_server.service.security.permissions import Permission
from tests.support.servers.certificates import Authority

INFER = "/inference.GRPCInferenceService/ModelInfer"
TOKEN = "first-token-of-the-bridge"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, authority = tmp_path_factory.mktemp("certificates"), Authority()
    certificate, key = authority.issue("server").write(folder, "server")
    (folder / "ca.crt").write_bytes(authority.certificate)
    (folder / "tokens").write_text(f"bridge {TOKEN} slides\n")
    return {"tls_certificate": certificate, "tls_key": key, "tls_client_ca": folder / "ca.crt", "tokens": folder / "tokens"}


def options(files: dict[str, Path], *names: str, **others: Any) -> SecurityOptions:
    return SecurityOptions(**{name: files[name] for name in names}, **{"listen": "0.0.0.0:8001", **others})


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:8001", True),
        ("127.9.9.9:1", True),
        ("[::1]:8001", True),
        ("localhost:8001", True),
        ("0.0.0.0:8001", False),
        ("[::]:8001", False),
        ("10.0.0.1:8001", False),
        ("host.example:8001", False),
        ("localhost.example:8001", False),
    ],
)
def test_only_loopback_counts_as_this_machine(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected


OPEN = [
    ((), ["INFERENCE_TLS_CERTIFICATE", "INFERENCE_TOKENS_FILE", "INFERENCE_TLS_CLIENT_CA", "INFERENCE_INSECURE=true"]),
    (("tokens",), ["INFERENCE_TLS_CERTIFICATE"]),
    (("tls_certificate", "tls_key"), ["INFERENCE_TOKENS_FILE"]),
]


@pytest.mark.parametrize(("names", "told"), OPEN)
def test_a_server_open_to_others_is_refused_and_the_fix_is_told(files: dict[str, Path], names: tuple[str, ...], told: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        secure(options(files, *names))
    assert [variable for variable in told if variable not in str(caught.value)] == []
    secure(options(files, *names, insecure=True))
    secure(options(files, *names, listen="127.0.0.1:8001"))


@pytest.mark.parametrize("also", ["tokens", "tls_client_ca"])
def test_tls_with_tokens_or_with_client_certificates_may_listen_anywhere(files: dict[str, Path], also: str) -> None:
    assert secure(options(files, "tls_certificate", "tls_key", also, tls_client_permissions=("infer",))).tls is not None


@pytest.mark.parametrize("names", [("tls_certificate",), ("tls_key",), ("tls_client_ca",), ("tls_key", "tls_client_ca")])
def test_half_of_tls_is_no_tls(files: dict[str, Path], names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="set both, or none of the three"):
        secure(options(files, *names, insecure=True))


def test_wrong_files_are_told_at_the_start(files: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    _, other_key = Authority().issue("other").write(tmp_path, "other")
    for name, path, reason in [
        ("tls_certificate", tmp_path / "absent", r"absent, named by INFERENCE_TLS_CERTIFICATE \(--tls-certificate\), cannot be read"),
        ("tls_certificate", tmp_path / "text", "no certificate and its key"),
        ("tls_key", other_key, "key values mismatch"),
        ("tls_client_ca", tmp_path / "text", "holds no certificates"),
        ("tokens", tmp_path / "absent", r"absent, named by INFERENCE_TOKENS_FILE \(--tokens-file\), cannot be read"),
    ]:
        with pytest.raises(ConfigurationError, match=reason):
            secure(options({**files, name: path}, *files))


def test_a_permission_of_certificates_that_there_is_not_is_told(files: dict[str, Path]) -> None:
    names = ("tls_certificate", "tls_key", "tls_client_ca")
    with pytest.raises(ConfigurationError, match=r"INFERENCE_TLS_CLIENT_PERMISSIONS .* has the permission 'fly'"):
        secure(options(files, *names, tls_client_permissions=("fly",)))


def test_without_tokens_and_certificates_everybody_may_do_everything() -> None:
    assert Access().identify("/inference.GRPCInferenceService/RepositoryModelLoad", ()) == Identity()


def test_a_token_is_known_by_its_name(files: dict[str, Path]) -> None:
    access = Access(tokens=files["tokens"])
    for header in (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER   {TOKEN} "):
        assert access.identify("/lamina.v1.SlideService/AnalyzeSlide", (("authorization", header),)).name == "bridge"


def test_health_needs_no_token_and_reflection_any(files: dict[str, Path]) -> None:
    access, reflection = Access(tokens=files["tokens"]), "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    assert access.identify("/grpc.health.v1.Health/Check", None) == Identity()
    assert access.identify(reflection, (("authorization", f"Bearer {TOKEN}"),)).name == "bridge"
    with pytest.raises(Unauthenticated):
        access.identify(reflection, ())


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        (),
        (("authorization", TOKEN),),
        (("authorization", f"Basic {TOKEN}"),),
        (("authorization", "Bearer "),),
        (("authorization", f"Bearer {TOKEN[:-1]}"),),
        (("authorization", f"Bearer {TOKEN}"), ("authorization", "Bearer other")),
        (("authorization-bin", TOKEN.encode()),),
    ],
)
def test_a_call_without_a_known_token_is_told_how_to_send_one(files: dict[str, Path], metadata: Any) -> None:
    with pytest.raises(Unauthenticated, match="authorization: Bearer TOKEN") as caught:
        Access(tokens=files["tokens"]).identify("/lamina.v1.SlideService/AnalyzeSlide", metadata)
    assert TOKEN[:-1] not in str(caught.value)


def test_a_token_without_the_permission_is_told_which_one_it_lacks(files: dict[str, Path]) -> None:
    with pytest.raises(PermissionMissing, match="needs the permission infer, which the token of bridge does not have") as caught:
        Access(tokens=files["tokens"]).identify(INFER, (("authorization", f"Bearer {TOKEN}"),))
    assert caught.value.permission == "infer"


def test_clients_with_a_certificate_have_the_permissions_set_for_them() -> None:
    access = Access(certificates=frozenset({Permission.INFER}))
    assert access.identify(INFER, ()) == Identity()
    with pytest.raises(PermissionMissing, match="a client certificate does not have"):
        access.identify("/inference.GRPCInferenceService/RepositoryModelUnload", ())
