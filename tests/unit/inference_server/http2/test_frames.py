from __future__ import annotations

import pytest
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame
from hypothesis import given
from hypothesis import strategies as st

from inference_server.service.http2 import frames
from inference_server.service.http2.frames import ConnectionFailed, ErrorCode


def _parsed(content: bytes) -> Frame:
    """A frame as an independent library reads it."""
    found, size = Frame.parse_frame_header(memoryview(content[:9]))
    assert size == len(content) - 9
    found.parse_body(memoryview(content[9:]))
    return found


@given(size=st.integers(0, 2**24 - 1), kind=st.integers(0, 255), flags=st.integers(0, 255), stream=st.integers(0, 2**31 - 1))
def test_a_header_is_read_as_it_was_written(size: int, kind: int, flags: int, stream: int) -> None:
    assert frames.read_frame_header(memoryview(frames.frame_header(size, kind, flags, stream)), 0) == (size, kind, flags, stream)


def test_the_reserved_bit_of_a_stream_means_nothing() -> None:
    assert frames.read_frame_header(memoryview(frames.frame_header(0, 0, 0, 2**31 + 5)), 0)[3] == 5


def test_another_library_reads_what_is_written() -> None:
    settings = _parsed(frames.settings({frames.MAX_FRAME_SIZE: 20_000, frames.INITIAL_WINDOW_SIZE: 7}))
    assert (type(settings), settings.settings) == (SettingsFrame, {5: 20_000, 4: 7})
    window = _parsed(frames.window_update(3, 2**31 - 1))
    assert (type(window), window.stream_id, window.window_increment) == (WindowUpdateFrame, 3, 2**31 - 1)
    reset = _parsed(frames.reset(5, ErrorCode.CANCEL))
    assert (type(reset), reset.stream_id, reset.error_code) == (RstStreamFrame, 5, 8)
    farewell = _parsed(frames.go_away(7, ErrorCode.ENHANCE_YOUR_CALM, "why"))
    assert (type(farewell), farewell.last_stream_id, farewell.error_code, farewell.additional_data) == (GoAwayFrame, 7, 11, b"why")
    data = _parsed(frames.frame(frames.DATA, frames.END_STREAM, 9, b"content"))
    assert (type(data), data.stream_id, data.data, "END_STREAM" in data.flags) == (DataFrame, 9, b"content", True)


@given(content=st.binary(max_size=50), padding=st.integers(0, 255), has_priority=st.booleans())
def test_headers_lose_their_padding_and_priority(content: bytes, padding: int, has_priority: bool) -> None:
    flags = frames.PADDED | (frames.HAS_PRIORITY if has_priority else 0)
    payload = bytes([padding]) + (bytes(5) if has_priority else b"") + content + bytes(padding)
    assert frames.unpadded(payload, flags) == content


@given(payload=st.binary(max_size=20), flags=st.sampled_from([0, frames.PADDED, frames.HAS_PRIORITY, frames.PADDED | frames.HAS_PRIORITY]))
def test_any_payload_of_headers_is_read_or_refused(payload: bytes, flags: int) -> None:
    codes, content = [], b""
    try:
        content = frames.unpadded(payload, flags)
    except ConnectionFailed as error:
        codes.append(error.code)
    assert content in payload
    assert set(codes) <= {ErrorCode.PROTOCOL_ERROR, ErrorCode.FRAME_SIZE_ERROR}


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [(2, 2, 1), (4, 2**31, 3), (5, 2**14 - 1, 1), (5, 2**24, 1), (2, 1, None), (4, 2**31 - 1, None), (5, 2**24 - 1, None), (77, 5, None)],
)
def test_settings_are_within_their_bounds(key: int, value: int, code: int | None) -> None:
    payload = key.to_bytes(2) + value.to_bytes(4)
    if code is None:
        assert list(frames.read_settings(payload)) == [(key, value)]
        return
    with pytest.raises(ConnectionFailed) as caught:
        list(frames.read_settings(payload))
    assert caught.value.code == code
