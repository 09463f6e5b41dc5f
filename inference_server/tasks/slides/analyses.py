"""Which analyses there are: what runs under a name, and how it begins on a slide."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from inference_server.errors import InvalidInput
from inference_server.scheduler.port import Inference, ModelFacts
from inference_server.tasks.builtin import builtin_facts
from inference_server.tasks.slides import manifest
from inference_server.tasks.slides.findings import AnalysisPlan, TileAnalysis
from inference_server.tasks.slides.kinds.classifier import SlideClassification, TileClassifier
from inference_server.tasks.slides.kinds.embedder import SlideEmbedding, TileEmbedder
from inference_server.tasks.slides.kinds.mil import AttentionHead, SlideJudgement
from inference_server.tasks.slides.kinds.nucleus_filter import NucleusFilter
from inference_server.tasks.slides.kinds.segmenter import SlideSegmentation, TileSegmenter
from inference_server.tasks.slides.kinds.slide_nuclei import SlideNuclei
from inference_server.tasks.slides.kinds.stains import Normaliser
from inference_server.tasks.slides.kinds.tile_model import TileModel
from inference_server.tasks.slides.manifest import (
    BUILT_IN,
    EmbedderManifest,
    HeadManifest,
    Manifest,
    NucleiManifest,
    SegmenterManifest,
    TileClassifierManifest,
)
from inference_server.tasks.slides.outputs import ome_tiff, table
from inference_server.tasks.slides.survey import Slide, read_batch
from inference_server.tasks.slides.values import Pixels

# Tiles of a slide from which the colours of its stains are estimated, and every which of their pixels: a number that no edge of tiles is a
# multiple of, so that not always the same columns are taken.
_SAMPLED_TILES = 32
_SAMPLED_STEP = 13


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """An analysis that can begin."""

    plan: AnalysisPlan
    # What its results depend on beside the plan, for checkpoints.
    settings: Mapping[str, object]
    # A fresh run over a slide that was surveyed by the plan. Raises `InvalidSlide`, `Unavailable`.
    begin: Callable[[Slide], Awaitable[TileAnalysis]]


class _Start(Protocol):
    """A run over a slide whose colours are known."""

    def __call__(self, *, plan: AnalysisPlan, slide: Slide, normalise: Normaliser | None) -> TileAnalysis:
        """Make it."""


class Analyses:
    """Those of a repository."""

    def __init__(self, *, inference: Inference, models: Path) -> None:
        """`models`: the repository's folder, where the manifests lie."""
        self._inference = inference
        self._models = models

    async def prepare(self, analysis: str, tile_size: int = 0) -> Prepared:
        """The analysis of a name, empty for he_baseline.

        Raises `NotFound`, `InvalidInput` for a tile size that it does not take, `ConfigurationError` for a manifest that does not fit.
        """
        return await asyncio.to_thread(self._prepared, analysis or BUILT_IN, tile_size)

    async def of_tiles(self, analysis: str) -> TileClassifier | NucleusFilter:
        """What runs single tiles under a name, empty for he_baseline. Raises as `prepare` does, and `InvalidInput` where nothing does."""
        name = analysis or BUILT_IN
        described = await asyncio.to_thread(manifest.read, self._models, name)
        if isinstance(described, NucleiManifest):
            return NucleusFilter(manifest=described, facts=self._facts(name))
        if isinstance(described, TileClassifierManifest):
            return TileClassifier(manifest=described, facts=self._facts(name))
        raise InvalidInput(
            f"{name} runs no single tiles; he_baseline, others of kind nuclei and classifiers do. Analyse the slide with it."
        )

    def _prepared(self, name: str, tile_size: int) -> Prepared:
        described = manifest.read(self._models, name)
        if isinstance(described, HeadManifest):
            return self._judged(name, described, tile_size)
        facts = self._facts(name)
        if isinstance(described, NucleiManifest):
            return _found(NucleusFilter(manifest=described, facts=facts), tile_size)
        if isinstance(described, EmbedderManifest):
            embedder = TileEmbedder(manifest=described, facts=facts)
            plan = embedder.plan(tile_size, extras=(table.VECTORS_FILE,))
            return _of(embedder, plan, described, lambda **run: SlideEmbedding(embedder=embedder, **run))
        if isinstance(described, SegmenterManifest):
            segmenter = TileSegmenter(manifest=described, facts=facts)
            plan = segmenter.plan(tile_size, extras=(ome_tiff.MASK_FILE,), step=described.output_stride, weight=segmenter.weight)
            return _of(segmenter, plan, described, lambda **run: SlideSegmentation(segmenter=segmenter, **run))
        assert isinstance(described, TileClassifierManifest)  # noqa: S101 - there are no more kinds
        classifier = TileClassifier(manifest=described, facts=facts)
        return _of(classifier, classifier.plan(tile_size), described, lambda **run: SlideClassification(classifier=classifier, **run))

    def _facts(self, name: str) -> ModelFacts:
        return builtin_facts(self._inference, name) if name == BUILT_IN else self._inference.facts(name)

    def _judged(self, name: str, described: HeadManifest, tile_size: int) -> Prepared:
        tiles = manifest.read_as(EmbedderManifest, self._models, described.embedder, used_by=name)
        embedder = TileEmbedder(manifest=tiles, facts=self._inference.facts(described.embedder))
        head = AttentionHead(manifest=described, facts=self._inference.facts(name), features=embedder.features)
        plan = embedder.plan(tile_size, analysis=name, extras=(table.VECTORS_FILE,))
        # Parts hold vectors, which do not depend on the head.
        return _of(embedder, plan, tiles, lambda **run: SlideJudgement(head=head, embedder=embedder, **run))


def _found(nuclei: NucleusFilter, tile_size: int) -> Prepared:
    plan = nuclei.plan(tile_size)

    async def begin(slide: Slide) -> TileAnalysis:
        return await asyncio.to_thread(
            SlideNuclei, nucleus_filter=nuclei, plan=plan, grid=slide.grid, tissue=slide.tissue, colours=slide.colours
        )

    return Prepared(plan=plan, settings=nuclei.manifest.model_dump(), begin=begin)


def _of(model: TileModel, plan: AnalysisPlan, described: Manifest, start: _Start) -> Prepared:
    async def begin(slide: Slide) -> TileAnalysis:
        stain = model.manifest.stain
        sample = await _sample(slide, plan) if stain and stain.estimate == "slide" else np.empty((0, 3), np.uint8)
        normalise = await asyncio.to_thread(model.normaliser, sample)
        return start(plan=plan, slide=slide, normalise=normalise)

    return Prepared(plan=plan, settings=described.model_dump(), begin=begin)


async def _sample(slide: Slide, plan: AnalysisPlan) -> Pixels:
    """Pixels of tiles spread evenly over those that are analysed, the same in every run: count × RGB."""
    step = -(-len(slide.tiles) // _SAMPLED_TILES) or 1
    read = [(await read_batch(slide, plan, [tile])).reshape(-1, 3)[::_SAMPLED_STEP] for tile in slide.tiles[::step]]
    return np.concatenate(read) if read else np.empty((0, 3), np.uint8)
