"""Names and files on command lines of benchmarks: one that there is not is refused, rather than measuring nothing and meeting bars."""

from __future__ import annotations

import sys

import pytest

from benchmarks import autoscale, documents, jobs, labs, large_slides, serving_peers, slides
from benchmarks.support.choices import some_of


@pytest.mark.parametrize(
    ("program", "flag", "known"),
    [
        (slides, "--parts", "classifier"),
        (documents, "--parts", "accuracy"),
        (jobs, "--parts", "latency"),
        (autoscale, "--workers", "slides"),
        (serving_peers, "--servers", "triton"),
    ],
)
@pytest.mark.parametrize("wrong", ["clasifier", ""])
def test_a_name_that_there_is_not_is_refused(
    program: object, flag: str, known: str, wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", "--check", flag, f"{known},{wrong}"])
    with pytest.raises(SystemExit) as ended:
        program.main()  # type: ignore[attr-defined]
    assert 2 == ended.value.code
    told = capsys.readouterr().err
    assert f"there is no {wrong!r}; expected some of" in told
    assert known in told.partition("expected some of")[2]


def test_names_run_in_their_own_order_and_once() -> None:
    assert ["raw", "memory"] == some_of(("raw", "decode", "memory"))("memory, raw,memory")


@pytest.mark.parametrize(("program", "flags"), [(slides, ["--slide"]), (labs, ["--table"]), (large_slides, ["large.svs", "--source"])])
def test_a_file_that_is_not_there_is_refused(
    program: object, flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", *flags, "no-such-file"])
    with pytest.raises(SystemExit) as ended:
        program.main()  # type: ignore[attr-defined]
    assert 2 == ended.value.code
    assert "there is no file no-such-file" in capsys.readouterr().err
