"""The graph of he_baseline against scikit-image, and against itself however the picture is cut."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from skimage.color import separate_stains

from inference_server.models.builders import he_baseline
from inference_server.models.builders import he_baseline_graph as graph
from inference_server.tasks.slides.kinds import nuclei

HALO = graph.HALO
SCALES = {scale.output: scale.pooled for scale in graph.SCALES}
RANDOM = np.random.default_rng(11)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> onnxruntime.InferenceSession:
    folder = he_baseline.build(tmp_path_factory.mktemp("models"))
    return onnxruntime.InferenceSession(folder / "1" / "model.onnx", providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, tiles: NDArray[np.uint8], leak: float = 0.0) -> dict[str, NDArray[np.float32]]:
    names = [output.name for output in session.get_outputs()]
    inputs = {"tiles": tiles, "eosin_leak": np.full((len(tiles), 1), leak, np.float32)}
    return dict(zip(names, session.run(names, inputs), strict=True))


def pixels_to_unmix() -> NDArray[np.uint8]:
    """Random colours, colours of stained tissue, and all that have only 0, 1, 127, 254 and 255 in them."""
    random = RANDOM.integers(0, 256, (128, 128, 3), np.uint8)
    amounts = RANDOM.gamma(2.0, 0.3, (128, 128, 2))
    stained = np.round(255 * 10.0 ** -(amounts @ graph.stain_matrix()[:2])).astype(np.uint8)
    extreme = np.array(np.meshgrid(*[[0, 1, 127, 254, 255]] * 3), np.uint8).reshape(3, -1).T
    corners = np.resize(extreme, (128, 128, 3))
    return np.stack([random, stained, corners])


def test_unmixing_equals_scikit_image_times_six_within_a_millionth(session: onnxruntime.InferenceSession) -> None:
    tiles = pixels_to_unmix()
    expected = separate_stains(tiles / 255, np.linalg.inv(graph.stain_matrix())) * 6
    actual = np.maximum(run(session, tiles)["densities"], 0)
    assert 1e-6 > np.abs(expected[..., 0] - actual[:, 0]).max()
    assert 1e-6 > np.abs(expected[..., 1] - actual[:, 1]).max()


def test_stain_vectors_are_qupaths_and_the_residual_is_normal_to_both() -> None:
    matrix = graph.stain_matrix()
    np.testing.assert_array_equal([(0.65111, 0.70119, 0.29049), (0.2159, 0.8012, 0.5581)], matrix[:2])
    np.testing.assert_allclose([0, 0, 1], matrix @ matrix[2], atol=1e-12)


@pytest.mark.parametrize("leak", [0.0, 0.203125])
@pytest.mark.parametrize("kind", ["noise", "stripes", "flat", "plateaus"])
def test_each_maximum_is_found_once_wherever_the_picture_is_cut(session: onnxruntime.InferenceSession, kind: str, leak: float) -> None:
    size = 512
    whole = pattern(kind, size + 2 * HALO)
    expected = run(session, whole[None], leak)
    for edge in (64, 128, 256):
        places = [(y, x) for y in range(0, size, edge) for x in range(0, size, edge)]
        outputs = run(session, np.stack([whole[y : y + edge + 2 * HALO, x : x + edge + 2 * HALO] for y, x in places]), leak)
        for name, pixels in (SCALES | dict.fromkeys(("haematoxylin", "eosin", "sharpness"), 16)).items():
            joined = np.zeros((size // pixels, size // pixels), np.float32)
            for index, (y, x) in enumerate(places):
                joined[y // pixels : (y + edge) // pixels, x // pixels : (x + edge) // pixels] = outputs[name][index]
            np.testing.assert_array_equal(expected[name][0], joined)


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


def blob(size: int, x: float, y: float, sigma: float, stain: tuple[float, float, float]) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[0 : size + 2 * HALO, 0 : size + 2 * HALO] + 0.5
    density = 0.8 * np.exp(-((columns - HALO - x) ** 2 + (rows - HALO - y) ** 2) / (2 * sigma**2))
    return np.round(255 * 10.0 ** -(density[..., None] * np.array(stain))).astype(np.uint8)


@pytest.mark.parametrize(("x", "y"), [(62.0, 74.0), (61.0, 73.0), (62.9, 74.9)])
def test_a_blob_is_found_at_its_centre_by_every_scale(session: onnxruntime.InferenceSession, x: float, y: float) -> None:
    found = run(session, blob(128, x, y, 4.0, graph.HAEMATOXYLIN)[None])
    for name, pooled in SCALES.items():
        ((row, column),) = zip(*np.nonzero(found[name][0]), strict=True)
        assert pooled / 2 >= max(abs(pooled * column - x), abs(pooled * row - y))


@pytest.mark.parametrize(("sigma", "strongest"), [(1.8, 0), (3.5, 1), (6.5, 2), (10.0, 3)])
def test_the_scale_of_a_blobs_size_answers_most_strongly(session: onnxruntime.InferenceSession, sigma: float, strongest: int) -> None:
    found = run(session, blob(128, 62.0, 74.0, sigma, graph.HAEMATOXYLIN)[None])
    assert strongest == int(np.argmax([found[name].max() for name in SCALES]))


def test_a_blob_answers_what_the_gaussian_and_the_laplacian_make_of_it(session: onnxruntime.InferenceSession) -> None:
    """A Gaussian of σ filtered at σ' has the response 2 · a · σ² σ'² / (σ² + σ'²)², with the peak a of its density."""
    tile = blob(128, 64.0, 72.0, 8.0, graph.HAEMATOXYLIN)
    for scale in graph.SCALES:
        variance = scale.variance * scale.pooled**2
        expected = 2 * 0.8 * 64 * variance / (64 + variance) ** 2
        # Three boxes are flatter than a Gaussian, the more so the less alike they are.
        assert 0.83 * expected < float(run(session, tile[None])[scale.output].max()) < 1.02 * expected


def test_eosin_that_leaks_into_haematoxylin_is_taken_away(session: onnxruntime.InferenceSession) -> None:
    pinkish = tuple(np.array(graph.EOSIN) + 0.25 * np.array(graph.HAEMATOXYLIN))
    tile = blob(128, 62.0, 74.0, 4.0, pinkish)[None]
    assert run(session, tile)["candidates"].max() > 0.05
    assert 0.0 == run(session, tile, leak=0.265625)["candidates"].max()


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


def test_a_model_of_a_release_without_a_manifest_is_built_again_with_one(tmp_path: Path) -> None:
    folder = he_baseline.build(tmp_path)
    (folder / "slide.json").unlink()
    assert "nuclei" == json.loads((he_baseline.build(tmp_path) / "slide.json").read_text())["kind"]


def test_the_task_knows_the_stains_and_the_pooling_of_the_graph() -> None:
    assert (graph.HAEMATOXYLIN, graph.EOSIN, graph.POOLED) == (nuclei.HAEMATOXYLIN, nuclei.EOSIN, nuclei.POOLED)
