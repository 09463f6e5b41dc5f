from __future__ import annotations

import json

import pytest
import structlog

from inference_server.logs import configure_logging


def _logged(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The levels of what was logged when one event of each level was."""
    log = structlog.get_logger()
    for level in ("debug", "info", "warning", "error"):
        getattr(log, level)("event")
    return [json.loads(line)["level"] for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize(
    ("level", "expected"),
    [("debug", ["debug", "info", "warning", "error"]), ("info", ["info", "warning", "error"]), ("error", ["error"])],
)
def test_events_below_the_level_are_not_logged(capsys: pytest.CaptureFixture[str], level: str, expected: list[str]) -> None:
    configure_logging(level)
    assert _logged(capsys) == expected


def test_each_class_of_events_is_turned_on_and_off_while_the_server_runs(capsys: pytest.CaptureFixture[str]) -> None:
    levels = configure_logging("warning")
    levels.change(verbose=0, info=True, warning=False, error=True)
    assert _logged(capsys) == ["info", "error"]
    levels.change(verbose=1, info=False, warning=False, error=False)
    assert _logged(capsys) == ["debug"]
    levels.change(verbose=0, info=False, warning=False, error=False)
    assert _logged(capsys) == []
