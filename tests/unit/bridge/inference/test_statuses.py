from __future__ import annotations

import grpc
import pytest

from bridge.errors import DeviceError, HeldUpError, OverloadError, PermanentError, RefusedError, TransientError
from bridge.inference.statuses import RULES, Meaning, is_retried, translate


def rpc_error(code: grpc.StatusCode, details: str = "details", *trailing: tuple[str, str]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details=details)


def test_every_status_but_ok_has_a_rule() -> None:
    assert set(grpc.StatusCode) - {grpc.StatusCode.OK} == set(RULES)


@pytest.mark.parametrize("code", RULES)
def test_every_status_becomes_the_error_of_its_meaning(code: grpc.StatusCode) -> None:
    expected = {Meaning.OVERLOAD: OverloadError, Meaning.TRANSIENT: TransientError, Meaning.PERMANENT: PermanentError}
    error = translate(rpc_error(code), address="here:1")
    assert isinstance(error, expected[RULES[code].meaning])
    # A place that may not be read is told apart: who chose it knows whose fault that is.
    assert isinstance(error, RefusedError) is (code is grpc.StatusCode.PERMISSION_DENIED)


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNIMPLEMENTED,
    ],
)
def test_what_will_fail_again_is_permanent_and_not_tried_again(code: grpc.StatusCode) -> None:
    assert Meaning.PERMANENT is RULES[code].meaning
    assert not is_retried(rpc_error(code))


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_a_server_that_is_down_or_full_is_an_overload(code: grpc.StatusCode) -> None:
    assert Meaning.OVERLOAD is RULES[code].meaning
    assert is_retried(rpc_error(code))


@pytest.mark.parametrize(
    ("code", "trailing", "told"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, (), "does not take our token"),
        (grpc.StatusCode.PERMISSION_DENIED, (("lamina-permission", "slides"),), "lets our token do too little"),
    ],
)
def test_a_token_that_is_at_fault_makes_jobs_wait_rather_than_fail(
    code: grpc.StatusCode, trailing: tuple[tuple[str, str], ...], told: str
) -> None:
    error = translate(rpc_error(code, "why", *trailing), address="here:1")
    assert isinstance(error, OverloadError)
    assert (f"the inference server at here:1 {told}: why [{code.name}]", 15.0) == (str(error), error.retry_after)
    assert not is_retried(rpc_error(code, "why", *trailing))


@pytest.mark.parametrize("part", ["model", "storage"])
def test_a_server_that_is_well_itself_holds_up_only_who_needs_what_is_away(part: str) -> None:
    error = translate(rpc_error(grpc.StatusCode.UNAVAILABLE, "it is away", ("lamina-unavailable", part)), address="here:1")
    assert isinstance(error, HeldUpError)
    assert ("it is away [UNAVAILABLE]", 15.0) == (str(error), error.retry_after)


def test_the_wait_that_the_server_asks_for_is_kept() -> None:
    error = translate(rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, "full", ("retry-after-ms", "1500")), address="here:1")
    assert isinstance(error, OverloadError)
    assert error.retry_after == 1.5


@pytest.mark.parametrize(("told", "kept"), [("soon", 2.0), ("-5", 2.0), ("99999999", 300.0)])
def test_a_wait_that_makes_no_sense_is_mended(told: str, kept: float) -> None:
    error = translate(rpc_error(grpc.StatusCode.UNAVAILABLE, "down", ("retry-after-ms", told)), address="here:1")
    assert isinstance(error, OverloadError)
    assert error.retry_after == kept


def test_the_servers_details_reach_the_reader_of_the_job() -> None:
    assert (
        str(translate(rpc_error(grpc.StatusCode.INVALID_ARGUMENT, "the slide does not tell its mpp"), address="here:1"))
        == "the slide does not tell its mpp [INVALID_ARGUMENT]"
    )


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.FAILED_PRECONDITION])
def test_a_device_that_could_not_do_it_is_told_with_its_cause_as_another_may(code: grpc.StatusCode) -> None:
    error = translate(rpc_error(code, "it failed", ("lamina-device-cause", "out_of_memory")), address="here:1")
    assert isinstance(error, DeviceError)
    assert ("it failed", "out_of_memory") == (str(error), error.cause)
