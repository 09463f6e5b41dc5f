"""What a manifest may say, and what docs/slides/models.md says of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from inference_server.errors import ConfigurationError, NotFound
from inference_server.models import shipped
from inference_server.models.builders import BUILDERS
from inference_server.tasks.slides import manifest
from inference_server.tasks.slides.manifest import (
    EmbedderManifest,
    HeadManifest,
    Manifest,
    NucleiManifest,
    SegmenterManifest,
    TileClassifierManifest,
)

TEXT = (Path(__file__).parents[5] / "docs" / "slides" / "models.md").read_text(encoding="utf-8")
KINDS: dict[str, type[Manifest]] = {
    "classifier": TileClassifierManifest,
    "embedder": EmbedderManifest,
    "mil": HeadManifest,
    "segmenter": SegmenterManifest,
    "nuclei": NucleiManifest,
}
NUCLEI = {
    "kind": "nuclei",
    "mpp": 0.5,
    "tile_size": 512,
    "halo": 22,
    "cell": 16,
    "scales": {"candidates": 2.0, "coarse_candidates": 2.8},
    "classes": ["Nuclear candidate"],
    "least_response_od": 0.045,
    "response_share": 0.22,
}


def read(folder: Path, told: Any) -> Manifest:
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "slide.json").write_text(told if isinstance(told, str) else json.dumps(told))
    return manifest.read(folder, "model")


def examples() -> list[Any]:
    return [json.loads(text) for text in re.findall(r"^    \{\n(?:     .*\n)+    \}$", TEXT, re.MULTILINE)]


def test_each_example_of_the_documentation_is_a_manifest_of_its_kind(tmp_path: Path) -> None:
    assert list(KINDS.values()) == [type(read(tmp_path, each)) for each in examples()]


def test_the_documentation_shows_the_manifest_of_the_built_in_analysis() -> None:
    assert json.loads(shipped.slide_manifest(manifest.BUILT_IN)) == examples()[-1]


def test_each_key_is_documented_with_the_kinds_that_have_it() -> None:
    rows = [line.split("|")[1:3] for line in TEXT.partition("| Key | Of |")[2].partition("\n\n")[0].splitlines()[2:]]
    told = {key: of.strip(" `") for keys, of in rows for key in re.findall("`([^`]+)`", keys)}
    groups = {"all": set(KINDS), "networks": set(KINDS) - {"nuclei"}, "tile models": {"classifier", "embedder", "segmenter"}}
    groups["all but embedders"], groups["networks but embedders"] = (groups[each] - {"embedder"} for each in ("all", "networks"))
    for key in {*told, *(key for model in KINDS.values() for key in model.model_fields)}:
        of = [groups.get(each.strip("`"), {each.strip("`")}) for each in told[key].split(", ")]
        assert {name for name, model in KINDS.items() if key in model.model_fields} == set().union(*of), key


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"kind": "detector"}, "kind: 'detector'; there are classifier, embedder, mil, segmenter, nuclei"),
        ({"kind": "nuclei", "mpp": 0.5}, "tile_size: Field required; halo: Field required"),
        (NUCLEI | {"tile_size": 4096}, "tile_size is 4096, and tile_sizes are 64 to 2048"),
        (NUCLEI | {"tile_size": 264}, "as multiples of cell, 16"),
        (NUCLEI | {"tile_sizes": [512, 1000]}, "as multiples of cell, 16"),
        (NUCLEI | {"scales": {"candidates": 2.0}}, "scales: Dictionary should have at least 2 items"),
        (NUCLEI | {"scales": {"candidates": 2.0, "coarse_candidates": 2.0}}, "scales has the same σ twice"),
        (NUCLEI | {"classes": ["small", "large"]}, "classes: Tuple should have at most 1 item"),
        (NUCLEI | {"colors": {"Nucleus": [0, 0, 0]}}, "colors names Nucleus, which classes lacks"),
        (NUCLEI | {"response_share": 2}, "response_share: Input should be less than or equal to 1"),
        (NUCLEI | {"least_tissue": 0.1}, "least_tissue: there is no such key"),
        ({"kind": "embedder", "mpp": 1, "tile_size": 64, "overlap": 7}, "overlap is 7; expected an even number"),
        ({"kind": "embedder", "mpp": 1, "tile_size": 64, "overlap": 50}, "leaves at least 16 px"),
        (
            {"kind": "segmenter", "mpp": 1, "tile_size": 64, "classes": ["a", "c"], "background": "b"},
            "background is b, which classes lacks",
        ),
        (
            {"kind": "segmenter", "mpp": 1, "tile_size": 64, "overlap": 4, "output_stride": 4, "classes": ["a", "b"]},
            "output_stride 4 does not",
        ),
        ({"kind": "mil", "classes": ["a", "b"]}, "embedder: Field required"),
        ({"kind": "mil", "embedder": "e", "classes": ["a", "c"], "thresholds": {"b": 0.5}}, "thresholds name b"),
        ({"kind": "mil", "embedder": "e", "classes": ["a", "c"], "colors": {"a": [300, 0, 12]}}, "less than or equal to 255"),
        ({"mpp": 1, "tile_size": 64, "classes": ["a"]}, "classes has one name, which would be taken always"),
        ({"mpp": 1, "tile_size": 64, "classes": ["a"], "activation": "sigmoid"}, "give it a threshold"),
        ({"mpp": 1, "tile_size": 64, "classes": ["a", "b"], "stain": {"method": "vahadane"}}, "stain.method"),
        ("not json", "Invalid JSON"),
        ("[" * 100_000, "Invalid JSON"),
        ("[]", "the whole: Input should be an object"),
    ],
)
def test_what_is_wrong_is_told_with_its_key(tmp_path: Path, told: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        read(tmp_path, told)
    assert message in str(caught.value)


def test_a_manifest_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert isinstance(read(tmp_path, "\ufeff" + json.dumps({"kind": "embedder", "mpp": 1, "tile_size": 64})), EmbedderManifest)


def test_the_built_in_analysis_of_an_older_repository_has_the_manifest_that_is_written_now(tmp_path: Path) -> None:
    assert BUILDERS[manifest.BUILT_IN](tmp_path / "new") == tmp_path / "new" / "he_baseline"
    assert manifest.read(tmp_path / "old", "he_baseline") == manifest.read(tmp_path / "new", "he_baseline")
    (tmp_path / "old" / "copied" / "1").mkdir(parents=True)
    with pytest.raises(NotFound, match="no analysis is called copied; there are: he_baseline"):
        manifest.read(tmp_path / "old", "copied")


def test_the_fine_scale_comes_first_however_a_manifest_lists_them(tmp_path: Path) -> None:
    found = read(tmp_path, NUCLEI | {"scales": {"coarse_candidates": 2.8, "candidates": 2.0}})
    assert isinstance(found, NucleiManifest)
    assert ("candidates", "coarse_candidates") == found.outputs
