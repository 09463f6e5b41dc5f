"""All benchmarks that have bars run by one command, which tells which of them missed theirs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def bench(folder: Path, **statuses: int) -> subprocess.CompletedProcess[str]:
    """Run stand-ins that end as they are told to, if they are asked to check."""
    scripts = []
    for name, status in statuses.items():
        scripts.append(folder / f"{name}.py")
        scripts[-1].write_text(f"import sys\nprint('measured by {name}')\nsys.exit({status} if sys.argv[1:] == ['--check'] else 99)\n")
    return subprocess.run([sys.executable, ROOT / "scripts" / "bench.py", *scripts], capture_output=True, text=True, timeout=60)


def test_those_after_a_missed_one_are_run_and_all_are_told_at_the_end(tmp_path: Path) -> None:
    done = bench(tmp_path, fast=0, slow=1, small=0)
    assert 1 == done.returncode, done.stderr
    table = done.stdout.partition("measured by small")[2]
    verdicts = [line.strip("│ ").replace("│", "").split()[:2] for line in table.splitlines() if line.startswith("│")]
    assert [["fast", "met"], ["slow", "MISSED"], ["small", "met"]] == verdicts
    assert all(f"measured by {name}" in done.stdout for name in ("fast", "slow", "small"))


def test_all_met_ends_well(tmp_path: Path) -> None:
    assert 0 == bench(tmp_path, fast=0, small=0).returncode


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_runs_all_that_have_bars_and_no_other() -> None:
    done = subprocess.run(["make", "-n", "bench"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    run = {Path(word).name for word in done.stdout.split() if word.startswith("benchmarks/")}
    others = {"gpu_throughput.py", "large_slides.py", "tissue.py"}
    assert {each.name for each in (ROOT / "benchmarks").glob("*.py")} - others == run
