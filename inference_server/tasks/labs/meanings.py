"""The embedded meanings of tests: of the catalogue's names they are known, of those met of late kept, and the rest is computed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from inference_server.scheduler.port import Caller, ModelFacts
from inference_server.tasks.labs.embed import Embedder, Vectors

# Laboratories print the same names again and again. A row of 384 values takes 1.5 KiB.
_KEPT = 4096


class Meanings:
    """Turns the meanings of printed tests into vectors, each as seldom as may be. For one event loop."""

    def __init__(self, embedder: Embedder, model: str, texts: Sequence[str], vectors: Vectors) -> None:
        """`texts`: the unique meanings of the catalogue's names, embedded as `vectors`, a row each, by the model that serves now."""
        self._embedder = embedder
        self._model = model
        self._sha256 = embedder.facts(model).sha256
        self._places = {text: place for place, text in enumerate(texts)}
        self._vectors = vectors
        self._met: OrderedDict[str, NDArray[np.float32]] = OrderedDict()

    async def embed(self, texts: Sequence[str], caller: Caller) -> tuple[Vectors, ModelFacts]:
        """One L2-normalised row for each text, and the encoder. Raises what `Embedder.embed` raises."""
        facts = self._embedder.facts(self._model)
        if facts.sha256 != self._sha256:
            # The encoder was changed beside us: what another one said is no likeness to this one's.
            return await self._embedder.embed(texts, model=self._model, caller=caller)
        found = {text: row for text in texts if (row := self._known(text)) is not None}
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        if missing:
            rows, facts = await self._embedder.embed(missing, model=self._model, caller=caller)
            computed = dict(zip(missing, rows, strict=True))
            found.update(computed)
            self._keep(computed)
        return np.stack([found[text] for text in texts]), facts

    def _known(self, text: str) -> NDArray[np.float32] | None:
        place = self._places.get(text)
        if place is not None:
            return np.asarray(self._vectors[place])
        if text in self._met:
            self._met.move_to_end(text)
        return self._met.get(text)

    def _keep(self, computed: Mapping[str, NDArray[np.float32]]) -> None:
        self._met.update(computed)
        while len(self._met) > _KEPT:
            self._met.popitem(last=False)
