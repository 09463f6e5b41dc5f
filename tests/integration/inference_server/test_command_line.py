"""Mistakes of the user on the command line."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from inference_server.__main__ import cli, main
from inference_server.settings import PREFIX, Settings
from tests.support.models.small_models import sum_and_difference, write_model

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs the command line in an empty folder, with no settings: exit status, and what it printed."""
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["inference-server", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), "".join(capsys.readouterr())

    return run


BAD = {
    "a folder of models that is not there": (("serve", "--models", "absent"), "inference-server models build --models absent"),
    "an address that is none": (("serve", "--listen", "8001"), "INFERENCE_LISTEN (--listen): expected host:port"),
    "an engine that there is not": (("serve", "--engine", "abacus"), "INFERENCE_ENGINE (--engine): expected auto"),
    "a device that is not there": (("serve", "--models", ".", "--device", "cuda:99"), "there is no device cuda:99"),
    "a list of models that is not there": (("models", "list", "--models", "absent"), "absent cannot be read"),
    "a precision that TensorRT lacks": (
        ("serve", "--tensorrt", "int3"),
        "INFERENCE_TENSORRT (--tensorrt): expected off, or some of float32",
    ),
    "a folder of models that cannot be made": (("models", "build", "--models", "/dev/null/models"), "he_baseline cannot be written to"),
    "tokens that are not there": (
        ("serve", "--models", ".", "--tokens-file", "absent"),
        "absent, named by INFERENCE_TOKENS_FILE (--tokens-file), cannot be read (FileNotFoundError)",
    ),
    "a certificate that is not there": (
        ("serve", "--models", ".", "--tls-certificate", "absent", "--tls-key", "absent"),
        "absent, named by INFERENCE_TLS_CERTIFICATE (--tls-certificate), cannot be read (No such file or directory)",
    ),
    "a table that is a folder": (("catalogue", "import", ".", "--models", "."), ". is no file; expected the Loinc.csv"),
    "a table that is not there": (("catalogue", "import", "absent.csv", "--models", "."), "absent.csv does not exist"),
    "a checkpoint that is not there": (("models", "import-bert", "absent", "--models", "."), "absent has no config.json"),
    "a model's name that is none": (("models", "import-bert", ".", "--name", "a/b", "--models", "."), "expected the name of a model"),
    "a service that there is not": (("serve", "--services", "labs,coffee"), "INFERENCE_SERVICES (--services): expected one or more of"),
    "a flag that there is not": (("serve", "--listn", "x"), "No such option: --listn"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_gets_a_clear_message_and_status_2(run: Run, case: str) -> None:
    arguments, message = BAD[case]
    status, told = run(*arguments)
    assert (status, message in told) == (2, True), told


def test_several_bad_settings_are_all_told_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERENCE_HTTP", "here")
    status, told = run("serve", "--grace-seconds", "-1")
    assert (status, [line.partition(" (")[0] for line in told.splitlines()]) == (
        2,
        ["inference-server: INFERENCE_HTTP", "inference-server: INFERENCE_GRACE_SECONDS"],
    )


@pytest.mark.parametrize(("flag", "other"), [("--listen", "--http"), ("--http", "--listen")])
def test_a_port_that_is_taken_is_told(run: Run, flag: str, other: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, told = run("serve", "--models", ".", flag, address, other, "127.0.0.1:0")
    assert (status, f"INFERENCE_{flag[2:].upper()}: {address} cannot be listened on" in told) == (2, True), told


def test_folders_to_read_from_that_are_not_there_are_warned_of_as_they_may_be_mounted_later(run: Run, tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        absent = ["mnt/scans", "file:///mnt/none", f"/mnt/{'a' * 300}", "~nobody-of-that-name/slides"]
        status, told = run("serve", "--models", ".", "--listen", address, "--read-roots", ",".join(["slides", "s3://bucket/", *absent]))
    # All the same it went on as far as its address.
    assert (status, f"{address} cannot be listened on" in told) == (2, True), told
    warnings = [json.loads(line) for line in told.splitlines() if "read_root_absent" in line]
    assert [(each["level"], each["root"]) for each in warnings] == [("warning", root) for root in absent]
    assert all(each["reason"].startswith("INFERENCE_READ_ROOTS (--read-roots) names it") for each in warnings)


def test_a_loinc_table_is_imported_and_the_report_says_what_was_left_out(run: Run, tmp_path: Path) -> None:
    rows = (
        "LOINC_NUM,COMPONENT,PROPERTY,TIME_ASPCT,SYSTEM,SCALE_TYP,METHOD_TYP,CLASSTYPE,STATUS,LONG_COMMON_NAME",
        "718-7,Hemoglobin,MCnc,Pt,Bld,Qn,,1,ACTIVE,Hemoglobin [Mass/volume] in Blood",
        "2345-7,Glucose,MCnc,Pt,Ser/Plas,Qn,,1,ACTIVE,Glucose [Mass/volume] in Serum or Plasma",
        "8302-2,Body height,Len,Pt,^Patient,Qn,,2,ACTIVE,Body height",
        "1111-1,Old,MCnc,Pt,Bld,Qn,,1,DEPRECATED,Old [Mass/volume] in Blood",
    )
    (tmp_path / "Loinc.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "models").mkdir()
    status, told = run("catalogue", "import", "Loinc.csv", "--models", "models")
    assert (status, "2 codes imported as loinc:" in told, "1 withdrawn, 1 not of a laboratory" in told) == (0, True, True), told
    assert (tmp_path / "models" / "_catalogue" / "loinc.csv").is_file()


def test_each_setting_is_a_flag_of_serve() -> None:
    serve = typer.main.get_command(cli).commands["serve"]  # type: ignore[attr-defined]
    assert [option.opts for option in serve.params] == [[f"--{name.replace('_', '-')}"] for name in Settings.model_fields]


def test_a_switch_needs_no_value(run: Run) -> None:
    status, told = run("serve", "--allow-http", "--models", "absent")
    assert (status, "absent is no folder" in told) == (2, True), told


def test_what_is_no_onnx_model_is_not_listed_as_well_formed(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    write_model(tmp_path, "whole", sum_and_difference())
    write_model(tmp_path, "junk", sum_and_difference())
    write_model(tmp_path, "empty", sum_and_difference())
    write_model(tmp_path, "lost", sum_and_difference())
    (tmp_path / "junk" / "1" / "model.onnx").write_bytes(b"this is no model\n" * 9)
    (tmp_path / "empty" / "1" / "model.onnx").write_bytes(b"")
    (tmp_path / "lost" / "1" / "model.onnx").unlink()
    write_model(tmp_path, "plan", sum_and_difference())
    (tmp_path / "plan" / "1" / "model.onnx").rename(tmp_path / "plan" / "1" / "model.plan")
    _, told = run("models", "list", "--models", ".")
    states = {cells[1].strip(): cells[4].strip() for line in told.splitlines() if len(cells := line.split("│")) == 6}
    assert ["empty", "junk", "lost", "plan", "whole"] == sorted(states)
    assert ("well-formed", "well-formed") == (states["whole"], states["plan"])
    assert "lost/1/model.onnx is missing; put the model there" == states["lost"]
    assert "junk/1/model.onnx is no ONNX model that can be read (DecodeError)" in states["junk"]
    assert "empty/1/model.onnx is no ONNX model: its graph has no inputs" in states["empty"]


def test_a_wrong_manifest_is_told_where_models_are_listed_and_when_a_server_starts(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    for name in ("sound", "odd"):
        write_model(tmp_path, name, sum_and_difference())
        (tmp_path / name / "slide.json").write_text(json.dumps({"mpp": 0.5, "tile_size": 224, "classes": ["a", "b"]}))
    (tmp_path / "odd" / "slide.json").write_text(json.dumps({"mpp": 0.5, "tilesize": 224, "classes": ["a", "b"]}))
    _, told = run("models", "list", "--models", ".")
    states = {cells[1].strip(): cells[4].strip() for line in told.splitlines() if len(cells := line.split("│")) == 6}
    reason = "odd/slide.json is wrong: tile_size: Field required; tilesize: there is no such key. docs/slides/models.md tells each key."
    assert {"sound": "well-formed", "odd": reason} == states

    with socket.create_server(("127.0.0.1", 0)) as taken:
        _, told = run("serve", "--models", ".", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    warnings = [json.loads(line) for line in told.splitlines() if "manifest_refused" in line]
    assert [("warning", "odd", reason)] == [(each["level"], each["analysis"], each["reason"]) for each in warnings]
