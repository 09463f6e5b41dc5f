"""The graph of he_baseline against scikit-image, and against itself however the picture is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from skimage.color import separate_stains

from inference_server.models.builders import he_baseline
from inference_server.tasks.slides import he_baseline as task

HALO = he_baseline.HALO
RANDOM = np.random.default_rng(11)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> onnxruntime.InferenceSession:
    folder = he_baseline.build(tmp_path_factory.mktemp("models"))
    return onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, tiles: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"tiles": tiles}), strict=True))


def pixels_to_unmix() -> NDArray[np.uint8]:
    """Random colours, colours of stained tissue, and all that have only 0, 1, 127, 254 and 255 in them."""
    random = RANDOM.integers(0, 256, (128, 128, 3), np.uint8)
    amounts = RANDOM.gamma(2.0, 0.3, (128, 128, 2))
    stained = np.round(255 * 10.0 ** -(amounts @ he_baseline.stain_matrix()[:2])).astype(np.uint8)
    extreme = np.array(np.meshgrid(*[[0, 1, 127, 254, 255]] * 3), np.uint8).reshape(3, -1).T
    corners = np.resize(extreme, (128, 128, 3))
    return np.stack([random, stained, corners])


def test_unmixing_equals_scikit_image_times_six_within_a_millionth(session: onnxruntime.InferenceSession) -> None:
    tiles = pixels_to_unmix()
    expected = separate_stains(tiles / 255, np.linalg.inv(he_baseline.stain_matrix())) * 6
    actual = run(session, tiles)
    assert 1e-6 > np.abs(expected[..., 0] - actual["haematoxylin_density"]).max()
    assert 1e-6 > np.abs(expected[..., 1] - actual["eosin_density"]).max()


def test_stain_vectors_are_qupaths_and_the_residual_is_normal_to_both() -> None:
    matrix = he_baseline.stain_matrix()
    np.testing.assert_array_equal([(0.65111, 0.70119, 0.29049), (0.2159, 0.8012, 0.5581)], matrix[:2])
    np.testing.assert_allclose([0, 0, 1], matrix @ matrix[2], atol=1e-12)


@pytest.mark.parametrize("kind", ["noise", "stripes", "flat", "plateaus"])
def test_each_candidate_is_found_once_wherever_the_picture_is_cut(session: onnxruntime.InferenceSession, kind: str) -> None:
    size = 512
    whole = pattern(kind, size + 2 * HALO)
    expected = run(session, whole[None])
    for edge in (64, 128, 256):
        places = [(y, x) for y in range(0, size, edge) for x in range(0, size, edge)]
        outputs = run(session, np.stack([whole[y : y + edge + 2 * HALO, x : x + edge + 2 * HALO] for y, x in places]))
        joined = np.zeros((size, size), np.float32)
        cells = np.zeros((3, size // 16, size // 16), np.float32)
        for index, (y, x) in enumerate(places):
            joined[y : y + edge, x : x + edge] = outputs["candidates"][index]
            for number, name in enumerate(("haematoxylin", "eosin", "sharpness")):
                cells[number, y // 16 : (y + edge) // 16, x // 16 : (x + edge) // 16] = outputs[name][index]
        np.testing.assert_array_equal(expected["candidates"][0], joined)
        np.testing.assert_array_equal([expected[name][0] for name in ("haematoxylin", "eosin", "sharpness")], cells)


def pattern(kind: str, edge: int) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[0:edge, 0:edge]
    random = np.random.default_rng(2)
    if kind == "noise":
        return random.integers(0, 256, (edge // 6 + 1, edge // 6 + 1, 3), np.uint8).repeat(6, 0).repeat(6, 1)[:edge, :edge]
    if kind == "stripes":
        return np.where(((columns % 24) < 8)[..., None], (90, 60, 150), (230, 200, 225)).astype(np.uint8)
    if kind == "flat":
        return np.full((edge, edge, 3), (90, 60, 150), np.uint8)
    return np.where((((columns % 40) < 20) & ((rows % 40) < 20))[..., None], (90, 60, 150), (235, 210, 230)).astype(np.uint8)


def test_of_equal_maxima_the_first_in_reading_order_is_taken(session: onnxruntime.InferenceSession) -> None:
    found = run(session, pattern("stripes", 256 + 2 * HALO)[None])["candidates"][0]
    rows, columns = np.nonzero(found)
    # A stripe is one long ridge of equal height: none of its pixels is greater than the one above it.
    assert 0 == np.count_nonzero(rows)
    assert len(set(columns)) == len(columns)


def test_a_blob_is_found_at_its_centre(session: onnxruntime.InferenceSession) -> None:
    size = 128
    rows, columns = np.mgrid[0 : size + 2 * HALO, 0 : size + 2 * HALO] + 0.5
    x, y = 61.0, 73.0
    blob = 0.8 * np.exp(-((columns - HALO - x) ** 2 + (rows - HALO - y) ** 2) / (2 * 4.0**2))
    tile = np.round(255 * 10.0 ** -(blob[..., None] * np.array(he_baseline.HAEMATOXYLIN))).astype(np.uint8)
    found = run(session, tile[None])["candidates"][0]
    assert [(73, 61)] == list(zip(*np.nonzero(found), strict=True))


def test_building_twice_changes_nothing_and_a_spoilt_model_is_built_again(tmp_path: Path) -> None:
    folder = he_baseline.build(tmp_path)
    model = folder / "1" / "model.onnx"
    first, when = model.read_bytes(), model.stat().st_mtime_ns
    he_baseline.build(tmp_path)
    assert when == model.stat().st_mtime_ns
    model.write_bytes(b"spoilt")
    he_baseline.build(tmp_path)
    assert first == model.read_bytes()
    assert ["he_baseline"] == [path.name for path in tmp_path.iterdir()]


def test_the_task_knows_the_graph_by_the_same_numbers() -> None:
    assert (he_baseline.NAME, he_baseline.HALO, he_baseline.CELL) == (task.NAME, task.HALO, task.CELL)
