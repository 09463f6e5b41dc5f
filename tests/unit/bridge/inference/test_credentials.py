"""What the client shows the inference server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bridge.errors import ConfigurationError
from bridge.inference import credentials
from bridge.inference.credentials import ServerTrust, Token, channel_credentials


def test_without_settings_there_is_neither_tls_nor_a_token() -> None:
    assert (channel_credentials(ServerTrust(), "host.example:8001"), Token(ServerTrust()).metadata()) == (None, ())


def test_a_token_goes_with_each_call() -> None:
    assert Token(ServerTrust(token=" secret-of-ours\n")).metadata() == (("authorization", "Bearer secret-of-ours"),)


def test_a_token_is_never_shown() -> None:
    assert "secret" not in repr(ServerTrust(token="secret-of-ours"))


def test_a_changed_file_of_the_token_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_LOOK_SECONDS", 0.0)
    path = tmp_path / "token"
    path.write_text("first-of-ours\n")
    token = Token(ServerTrust(token_file=path))
    assert token.metadata() == (("authorization", "Bearer first-of-ours"),)
    path.write_text("")
    assert token.metadata() == (("authorization", "Bearer first-of-ours"),)
    path.write_text("second-of-ours")
    os.utime(path, (1, 1))
    assert token.metadata() == (("authorization", "Bearer second-of-ours"),)
    path.unlink()
    assert token.metadata() == (("authorization", "Bearer second-of-ours"),)


def test_a_byte_order_mark_is_no_part_of_a_token(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("secret-of-ours\n", "utf-8-sig")
    assert Token(ServerTrust(token_file=path)).metadata() == (("authorization", "Bearer secret-of-ours"),)


@pytest.mark.parametrize("text", ["", " \n", "two words", "übung", "a\x00b"])
def test_what_is_no_token_is_told_without_showing_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match="holds no token"):
        Token(ServerTrust(token_file=path))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Token(ServerTrust(token_file=tmp_path / "absent"))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        channel_credentials(ServerTrust(tls=True, ca=tmp_path / "absent"), "127.0.0.1:1")


@pytest.mark.parametrize(
    ("trust", "told"),
    [
        (ServerTrust(token="a", token_file=Path("b")), "both set"),
        (ServerTrust(tls=True, key=Path("b")), "go together"),
        (ServerTrust(ca=Path("b")), "BRIDGE_INFERENCE_TLS=true"),
        (ServerTrust(token="a"), "in the clear"),
    ],
)
def test_settings_that_do_not_fit_are_told(trust: ServerTrust, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        channel_credentials(trust, "host.example:8001")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "[::1]:1"])
def test_a_token_may_stay_on_this_machine_in_the_clear(address: str) -> None:
    assert channel_credentials(ServerTrust(token="a"), address) is None


def test_a_token_goes_out_in_the_clear_only_where_that_is_meant() -> None:
    assert channel_credentials(ServerTrust(token="a", insecure=True), "host.example:8001") is None


def test_a_token_goes_in_the_clear_only_where_every_address_is_of_this_machine() -> None:
    assert channel_credentials(ServerTrust(token="secret-of-ours"), "127.0.0.1:1,localhost:2,[::1]:3") is None
    with pytest.raises(ConfigurationError, match="in the clear"):
        channel_credentials(ServerTrust(token="secret-of-ours"), "127.0.0.1:1,10.0.0.7:1")
