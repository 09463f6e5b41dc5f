from __future__ import annotations

from urllib.parse import unquote

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_server.service.http2 import blocks
from inference_server.service.http2.frames import ConnectionFailed, ErrorCode
from inference_server.service.http2.headers import HeadReader
from tests.support.inference_server.http2 import block, head

NAMES = st.from_regex(r"[a-z][a-z0-9_.-]{0,12}", fullmatch=True).filter(lambda name: not name.endswith("-bin"))
VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=200)


@given(metadata=st.lists(st.tuples(NAMES, VALUES), max_size=5))
def test_another_library_reads_what_is_written(metadata: list[tuple[str, str]]) -> None:
    decoded = hpack.Decoder(max_header_list_size=2**20).decode(blocks.NO_TABLE + blocks.trailers(5, "no", metadata))
    assert [tuple(item) for item in decoded] == [("grpc-status", "5"), ("grpc-message", "no"), *metadata]


@given(details=st.text(max_size=300))
def test_words_of_any_language_reach_the_caller(details: str) -> None:
    decoded = dict(hpack.Decoder().decode(blocks.trailers(5, details, ())))
    assert unquote(decoded.get("grpc-message", "")) == details


@pytest.mark.parametrize("details", ["x" * 100_000, "é" * 100_000, "日" * 100_000, "%" * 100_000, "a" + "é" * 9_999])
def test_words_are_cut_between_characters(details: str) -> None:
    sent = dict(hpack.Decoder().decode(blocks.trailers(5, details, ())))["grpc-message"]
    assert len(sent) <= 6144
    assert 6100 < len(sent)
    assert details.startswith(unquote(sent, errors="strict"))


def test_a_value_with_control_characters_does_not_become_two_headers() -> None:
    decoded = dict(hpack.Decoder().decode(blocks.trailers(5, "no", (("a", "b\r\nc: d"), ("e", "é")))))
    assert (decoded["a"], decoded["e"]) == ("b??c: d", "?")


@given(calls=st.lists(st.dictionaries(NAMES, VALUES, max_size=4), min_size=1, max_size=6))
def test_calls_are_read_as_another_library_writes_them(calls: list[dict[str, str]]) -> None:
    """With its table, in which what is the same is told once."""
    encoder, reader = hpack.Encoder(), HeadReader()
    reserved = {"te", "host", "connection", "upgrade"}
    for metadata in calls * 2:
        sent = [item for item in metadata.items() if item[0] not in reserved]
        found = reader.read(encoder.encode([*head(), *sent]))
        assert (found.path, list(found.metadata), found.malformed) == ("/test.Transport/One", sent, "")


def test_a_block_means_something_else_once_the_table_has_changed() -> None:
    reader, whole = HeadReader(), block(head())
    insert = b"\x40\x01a\x01b"
    assert reader.read(whole + insert).metadata == (("a", "b"),)
    assert reader.read(whole + b"\xbe").metadata == (("a", "b"),)
    assert reader.read(whole + b"\xbe").metadata == (("a", "b"),)
    reader.read(whole + b"\x40\x01a\x01c")
    assert reader.read(whole + b"\xbe").metadata == (("a", "c"),)
    reader.read(b"\x20" + whole)
    with pytest.raises(ConnectionFailed):
        reader.read(whole + b"\xbe")


def test_a_table_that_was_emptied_and_filled_anew_is_read_each_time() -> None:
    reader, whole = HeadReader(), block(head())
    empty, fill = b"\x20\x3f\xe1\x1f", b"\x40\x01a\x01b"
    for _ in range(3):
        reader.read(empty + whole)
        reader.read(whole + fill)
        assert reader.read(whole + b"\xbe").metadata == (("a", "b"),)


@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    codes = []
    try:
        HeadReader().read(content)
    except ConnectionFailed as error:
        codes.append(error.code)
    assert set(codes) <= {ErrorCode.COMPRESSION_ERROR, ErrorCode.ENHANCE_YOUR_CALM}


@pytest.mark.parametrize(
    ("value", "seconds"), [("1H", 3600), ("2M", 120), ("3S", 3), ("250m", 0.25), ("5u", 5e-6), ("99999999n", 0.099999999)]
)
def test_a_timeout_is_in_its_unit(value: str, seconds: float) -> None:
    assert HeadReader().read(block(head(grpc_timeout=value))).timeout == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["", "S", "1", "1s", "1.5S", "123456789S", "-1S", " 1S", "\xb2S"])
def test_a_timeout_that_is_none_is_refused(value: str) -> None:
    refusal = HeadReader().read(block(head(grpc_timeout=value))).refusal
    assert refusal is not None
    assert (refusal[0], "grpc-timeout" in refusal[1]) == (400, True)
