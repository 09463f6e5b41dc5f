from __future__ import annotations

import bridge.errors
from bridge.errors import BridgeError, OverloadError, TransientError
from bridge.worker import FATES, Fate, fate_of


def _errors() -> set[type[Exception]]:
    return {value for value in vars(bridge.errors).values() if isinstance(value, type) and issubclass(value, BridgeError)}


def test_every_error_of_the_bridge_has_a_fate_of_its_own() -> None:
    assert _errors() | {Exception} == set(FATES)


def test_every_fate_is_some_errors() -> None:
    assert set(Fate) == set(FATES.values())


def test_an_error_that_nobody_foresaw_is_tried_again() -> None:
    assert fate_of(KeyError("x")) is Fate.RETRY


def test_a_subclass_shares_the_fate_of_its_nearest_ancestor() -> None:
    class ServerGone(OverloadError):
        pass

    class Both(TransientError, ValueError):
        pass

    assert [Fate.WAIT, Fate.RETRY] == [fate_of(ServerGone("gone")), fate_of(Both("odd"))]
