"""Multiple-instance heads: a network that judges a slide by the vectors of its tiles, and tells which of them it looked at.

Ilse et al., "Attention-based deep multiple instance learning", ICML 2018.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from inference_server.engine.port import Tensor, Tensors
from inference_server.errors import ConfigurationError
from inference_server.scheduler.port import Caller, Inference, InferenceRequest, ModelFacts
from inference_server.tasks.slides.findings import AnalysisPlan, Column, Findings, Heat, Json, Shape
from inference_server.tasks.slides.kinds.embedder import SlideEmbedding, TileEmbedder
from inference_server.tasks.slides.kinds.stains import Normaliser
from inference_server.tasks.slides.kinds.tile_model import (
    ROUNDING,
    activated,
    as_numbers_of,
    class_probabilities,
    output_of,
    rectangle,
    taken,
    tensor_name,
    twice,
)
from inference_server.tasks.slides.manifest import FILE, HeadManifest
from inference_server.tasks.slides.survey import Slide
from inference_server.tasks.slides.tiling import Tile, places_of
from inference_server.tasks.slides.values import Pixels

CLASSIFICATION = "High attention"
_COLOUR = (213, 94, 0)
# Kinds of types: text, signed and unsigned numbers, truth values.
_NO_FLOATS = "OUSiub"
# Bytes of the vectors of one bag, which a head takes whole.
_MOST_BAG_BYTES = 256 * 1024 * 1024


class AttentionHead:
    """How one head takes vectors, and what its outputs mean."""

    def __init__(self, *, manifest: HeadManifest, facts: ModelFacts, features: int) -> None:
        """`features`: of its embedder. Raises `ConfigurationError` when the manifest does not fit the model, or the model its embedder."""
        self.manifest = manifest
        self.facts = facts
        self._input = tensor_name(facts, manifest.input, "input")
        self._output = tensor_name(facts, manifest.output, "output")
        self._attention = tensor_name(facts, manifest.attention, "output") if manifest.attention else ""
        spec = next(each for each in facts.inputs if each.name == self._input)
        if spec.dtype.kind in _NO_FLOATS:
            raise ConfigurationError(f"{facts.name} takes {self._input} of the type {spec.dtype.name}; a head takes vectors of floats.")
        if len(spec.shape) not in (2, 3) or spec.shape[-1] not in (-1, features) or spec.shape[-2] != -1:
            raise ConfigurationError(
                f"{facts.name} takes {list(spec.shape)}, and {manifest.embedder} gives {features} numbers a tile; expected "
                f"[tiles, {features}] or [1, tiles, {features}], with any number of tiles (-1)."
            )
        if len(spec.shape) == 2 and facts.max_batch_size:
            raise ConfigurationError(
                f"{facts.name} takes [tiles, features] and is served in batches, which would mix the tiles of several slides. "
                "Put max_batch_size: 0 into its config.pbtxt."
            )
        # Whether attention by class comes as tiles × classes, where the shape alone tells.
        shapes = {each.name: each.shape for each in facts.outputs}
        self._classes_last = bool(self._attention) and tuple(shapes[self._attention])[-1:] == (len(manifest.classes),)
        self._dtype = spec.dtype
        self._rank = len(spec.shape)
        # Of a model's bag, as float32 or as the model takes it.
        self.most_tiles = max(min(manifest.most_tiles, _MOST_BAG_BYTES // (features * self._dtype.itemsize)), 1)

    def request(self, vectors: NDArray[np.floating], caller: Caller) -> InferenceRequest:
        """The call that judges a bag, tiles × features. Raises `ConfigurationError` where a value is beyond what the model takes."""
        values = as_numbers_of(
            self._dtype, vectors, source=self.manifest.embedder, way_out=f"Export {self.facts.name} so that it takes float32."
        )
        return InferenceRequest(
            model=self.facts.name,
            version=self.facts.version,
            inputs={self._input: values if self._rank == 2 else values[None]},
            outputs=(self._output, self._attention) if self._attention else (self._output,),
            caller=caller,
        )

    def probabilities(self, outputs: Mapping[str, Tensor]) -> NDArray[np.float64]:
        """One for each class. Raises `ConfigurationError` when the output has another size."""
        values = np.asarray(output_of(outputs, self._output, self.facts.name), np.float64).reshape(-1)
        return np.asarray(class_probabilities(values, self.manifest, axis=0, model=self.facts.name, unit="slide"), np.float64)

    def doubt(self, outputs: Mapping[str, Tensor]) -> tuple[str, ...]:
        """A note where the values are probabilities before softmax already: one slide's may be alike, but hardly sum to 1 by chance."""
        values = np.asarray(outputs[self._output], np.float64).reshape(-1)
        made = self.manifest.activation == "softmax" and values.min() >= 0 and abs(values.sum() - 1) <= ROUNDING
        return (twice("softmax"),) if made else ()

    def attention(self, outputs: Mapping[str, Tensor], tiles: int) -> NDArray[np.float64] | None:
        """One for each tile: those of the positive class where the head has some by class. Raises `ConfigurationError`."""
        if not self._attention:
            return None
        raw = np.asarray(output_of(outputs, self._attention, self.facts.name), np.float64)
        classes = len(self.manifest.classes)
        if raw.size == tiles:
            weights = raw.reshape(-1)
        elif raw.size == tiles * classes and raw.shape[-1] in (tiles, classes):
            classes_first = raw.shape[-1] == tiles and not self._classes_last
            by_class = raw.reshape(classes, tiles) if classes_first else raw.reshape(tiles, classes).T
            weights = by_class[self.manifest.heat_class]
        else:
            raise ConfigurationError(
                f"{self.facts.name} puts out attention of the shape {list(raw.shape)} for {tiles} tiles; expected one a tile, "
                "or one a tile and class."
            )
        return np.asarray(activated(weights, self.manifest.attention_activation, 0), np.float64)


class SlideJudgement:
    """One run of a head over one slide: its embedder over the tiles, then the head over their vectors."""

    def __init__(
        self, *, head: AttentionHead, embedder: TileEmbedder, plan: AnalysisPlan, slide: Slide, normalise: Normaliser | None = None
    ) -> None:
        """`plan`: the embedder's, by which the slide was surveyed."""
        self._head = head
        self._embedding = SlideEmbedding(embedder=embedder, plan=plan, slide=slide, normalise=normalise)
        # Of more tiles than the head takes, evenly spaced ones.
        self._step = -(-len(slide.tiles) // head.most_tiles) or 1
        self._bag = slide.tiles[:: self._step]
        self._engine = head.facts.engine
        self._probabilities: NDArray[np.float64] | None = None
        self._doubt: tuple[str, ...] = ()
        shape = self._embedding.tissue.shape
        self._attention = np.full(shape, np.nan)
        self._ranks = np.full(shape, np.nan)

    @property
    def plan(self) -> AnalysisPlan:
        """How the tiles must be cut."""
        return self._embedding.plan

    def inputs(self, tiles: Pixels) -> Tensors:
        """As the embedder takes them."""
        return self._embedding.inputs(tiles)

    def reduce(self, tiles: Pixels, outputs: Mapping[str, Tensor]) -> Tensors:
        """As the embedder keeps them."""
        return self._embedding.reduce(tiles, outputs)

    def collect(self, tiles: Sequence[Tile], kept: Tensors) -> None:
        """Put the vectors to the others."""
        self._embedding.collect(tiles, kept)

    async def conclude(self, inference: Inference, caller: Caller) -> None:
        """Have the head judge the bag, in the order of its tiles. A slide without tissue has no bag."""
        if not self._bag:
            return
        vectors = await asyncio.to_thread(self._embedding.vectors, self._bag)
        response = await inference.infer(self._head.request(vectors, caller))
        self._engine = response.engine
        self._probabilities = self._head.probabilities(response.outputs)
        self._doubt = self._head.doubt(response.outputs)
        weights = self._head.attention(response.outputs, len(self._bag))
        if weights is not None:
            places = places_of(self._bag)
            self._attention[places] = weights
            self._ranks[places] = _ranks(weights)

    def findings(self) -> Findings:
        """The slide's class, and what the head looked at."""
        return Findings(
            measures=self._measures(),
            notes=(
                f"Classes are those of {FILE} beside the head, of the whole slide. Attention is what the head weighed, not what it found.",
                *((f"The head judged every {self._step}th tile: it takes at most {self._head.most_tiles}.",) if self._step > 1 else ()),
                *self._doubt,
            ),
            heat=Heat(values=self._ranks, scale=self._embedding.scale, top=1.0),
            points=np.empty((0, 2)),
            shapes=self._shapes,
            figures=self._figures,
            vectors=self._embedding.kept,
        )

    def _measures(self) -> dict[str, Json]:
        manifest, facts = self._head.manifest, self._head.facts
        values = None if self._probabilities is None else self._probabilities.tolist()
        chosen = -1 if self._probabilities is None else int(taken(self._probabilities, manifest.classes, manifest.thresholds, 0))
        return {
            "class": manifest.classes[chosen] if chosen >= 0 else None,
            "positive_class": manifest.classes[manifest.heat_class],
            "classes": [
                {"name": name, "probability": None if values is None else round(values[index], 6)}
                for index, name in enumerate(manifest.classes)
            ],
            "head": {"name": facts.name, "version": facts.version, "engine": self._engine, "sha256": facts.sha256},
            "features": self._embedding.embedder.features,
            "bag_tiles": len(self._bag),
            "bag_step": self._step,
        }

    def _figures(self, tiles: Sequence[Tile]) -> Mapping[str, Column]:
        places = places_of(tiles)
        return {
            **self._embedding.quality(tiles),
            "attention": self._attention[places].astype(np.float32),
            "attention_rank": self._ranks[places].astype(np.float32),
        }

    def _shapes(self) -> Iterator[Shape]:
        least = self._head.manifest.attention_shown
        for row, column in np.argwhere(self._ranks >= least).tolist():
            yield Shape(
                corners=rectangle(row, column, self.plan.tile_size, self._embedding.grid),
                classification=CLASSIFICATION,
                colour=_COLOUR,
                measurements={
                    "Attention": float(f"{self._attention[row, column]:.6g}"),
                    "Attention rank": round(float(self._ranks[row, column]), 6),
                },
            )


def _ranks(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The share of tiles with no more attention; equal weights have equal ranks."""
    ordered = np.sort(weights)
    return np.asarray(np.searchsorted(ordered, weights, side="right") / len(weights))
