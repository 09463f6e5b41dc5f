"""What a manifest may say, and what docs/slides.md says of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from inference_server.errors import ConfigurationError
from inference_server.tasks.slides import manifest
from inference_server.tasks.slides.manifest import EmbedderManifest, HeadManifest, Manifest, SegmenterManifest, TileClassifierManifest

TEXT = (Path(__file__).parents[5] / "docs" / "slides.md").read_text(encoding="utf-8").partition("## Your own models")[2]
KINDS: dict[str, type[Manifest]] = {
    "classifier": TileClassifierManifest,
    "embedder": EmbedderManifest,
    "mil": HeadManifest,
    "segmenter": SegmenterManifest,
}


def read(folder: Path, told: Any) -> Manifest:
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "slide.json").write_text(told if isinstance(told, str) else json.dumps(told))
    return manifest.read(folder, "model")


def test_each_example_of_the_documentation_is_a_manifest_of_its_kind(tmp_path: Path) -> None:
    examples = [json.loads(text) for text in re.findall(r"^    \{\n(?:     .*\n)+    \}$", TEXT, re.MULTILINE)]
    assert list(KINDS.values()) == [type(read(tmp_path, each)) for each in examples]


def test_each_key_is_documented_with_the_kinds_that_have_it() -> None:
    rows = [line.split("|")[1:3] for line in TEXT.partition("| Key | Of |")[2].partition("\n\n")[0].splitlines()[2:]]
    told = {key: of.strip(" `") for keys, of in rows for key in re.findall("`([^`]+)`", keys)}
    kinds = {"all": set(KINDS), "tile models": set(KINDS) - {"mil"}, "all but embedders": set(KINDS) - {"embedder"}}
    for key in {*told, *(key for model in KINDS.values() for key in model.model_fields)}:
        assert {name for name, model in KINDS.items() if key in model.model_fields} == kinds.get(told[key], {told[key]}), key


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"kind": "detector"}, "kind: 'detector'; there are classifier, embedder, mil, segmenter"),
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
