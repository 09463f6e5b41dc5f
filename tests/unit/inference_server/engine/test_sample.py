"""Input that is made up for a model whose owner gives none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference_server.engine.devices import Device, cpu, gpus
from inference_server.engine.port import TensorSpec
from inference_server.engine.selection.sample import representative
from inference_server.threads import usable_cores


def spec(shape: tuple[int, ...], dtype: type = np.float32) -> TensorSpec:
    return TensorSpec(name="x", dtype=np.dtype(dtype), shape=shape)


@pytest.mark.parametrize(
    ("shape", "rows", "expected"),
    [
        ((-1, 4), 8, (8, 4)),
        ((-1, -1), 8, (8, 32)),
        ((-1, 3, -1, -1), 2, (2, 3, 224, 224)),
        ((-1, -1, -1, -1), 2, (2, 3, 224, 224)),
        ((-1, -1, -1, 3), 2, (2, 224, 224, 3)),
        ((3, -1), 0, (3, 32)),
        ((-1, 4), 0, (1, 4)),
        ((-1,), 0, (32,)),
        ((), 0, ()),
    ],
)
def test_sizes_that_vary_are_likely_ones(shape: tuple[int, ...], rows: int, expected: tuple[int, ...]) -> None:
    assert expected == representative([spec(shape)], rows=rows)["x"].shape


def test_sizes_that_the_owner_tells_are_taken() -> None:
    assert (4, 3, 48, 320) == representative([spec((-1, 3, 48, -1))], rows=4, shapes={"x": (3, 48, 320)})["x"].shape


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.int32, np.uint8, bool])
def test_content_is_never_all_zero_and_the_same_each_time(dtype: type) -> None:
    first, second = (representative([spec((4, 5), dtype)])["x"] for _ in range(2))
    assert dtype == first.dtype
    assert first.any(axis=1).all()
    np.testing.assert_array_equal(first, second)


def test_integers_are_small_enough_for_any_table() -> None:
    assert {0, 1} == set(representative([spec((8, 64), np.int64)])["x"].flat)


def test_the_devices_of_this_machine_are_told() -> None:
    assert ("cpu", usable_cores()) == (cpu().id, cpu().cores)
    assert cpu().name
    assert all(gpu.id.startswith("cuda:") for gpu in gpus())


def test_gpus_are_read_from_the_drivers_own_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '0, NVIDIA T4'\necho '1, NVIDIA T4'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert (Device(id="cuda:0", name="NVIDIA T4"), Device(id="cuda:1", name="NVIDIA T4")) == gpus()
    program.write_text("#!/bin/sh\nexit 9\n")
    assert () == gpus()
