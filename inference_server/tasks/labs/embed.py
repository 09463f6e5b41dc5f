"""Turns texts into vectors with a sentence encoder of the repository."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from inference_server.errors import InvalidInput, ModelFailed
from inference_server.scheduler.port import Caller, Inference, InferenceRequest, ModelFacts

# Token counts that texts are padded to, so that the scheduler finds batches of one shape.
BUCKETS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_DEFAULT_MAX_TOKENS = 256
_OUTPUT = "sentence_embedding"
# Requests that one call keeps in flight; the rest wait here rather than in the scheduler's queue.
_IN_FLIGHT = 4

Vectors = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class _Encoded:
    # Where the text stands among the caller's.
    position: int
    tokens: list[int]


class Embedder:
    """Embeds texts: splits them into tokens, pads them to buckets, runs them in batches."""

    def __init__(self, inference: Inference, models: Path) -> None:
        """`models`: the repository, where each encoder's tokenizer.json lies beside its model file."""
        self._inference = inference
        self._models = models
        self._tokenizers: dict[tuple[str, str], Tokenizer] = {}

    def facts(self, model: str) -> ModelFacts:
        """What is known of an encoder. Raises `NotFound`, `Unavailable`, or `InvalidInput` when it is not a sentence encoder."""
        facts = self._inference.facts(model)
        if not any(output.name == _OUTPUT for output in facts.outputs):
            raise InvalidInput(f"the model {model} has no output {_OUTPUT}; choose a sentence encoder, such as all_minilm_l6_v2.")
        return facts

    async def embed(
        self, texts: Sequence[str], *, model: str, caller: Caller, progress: Callable[[int], None] | None = None
    ) -> tuple[Vectors, ModelFacts]:
        """One L2-normalised row for each text; texts longer than the model takes are cut. `progress` gets the count of texts done."""
        facts = self.facts(model)
        encoded = await asyncio.to_thread(self._encode, facts, texts)
        batches = _batches(encoded, _most_rows(facts))
        done = 0
        results: list[tuple[list[_Encoded], Vectors]] = []
        free = asyncio.Semaphore(_IN_FLIGHT)

        async def run(batch: list[_Encoded]) -> None:
            nonlocal done
            async with free:
                results.append((batch, await self._run(facts, batch, caller)))
            done += len(batch)
            if progress is not None:
                progress(done)

        try:
            async with asyncio.TaskGroup() as group:
                for batch in batches:
                    group.create_task(run(batch))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return _in_order(results, len(texts)), facts

    async def _run(self, facts: ModelFacts, batch: list[_Encoded], caller: Caller) -> Vectors:
        width = _bucket(max(len(each.tokens) for each in batch))
        tokens = np.zeros((len(batch), width), np.int64)
        mask = np.zeros((len(batch), width), np.int64)
        for row, each in enumerate(batch):
            tokens[row, : len(each.tokens)] = each.tokens
            mask[row, : len(each.tokens)] = 1
        request = InferenceRequest(
            model=facts.name, version=facts.version, inputs={"input_ids": tokens, "attention_mask": mask}, outputs=(_OUTPUT,), caller=caller
        )
        response = await self._inference.infer(request)
        return np.asarray(response.outputs[_OUTPUT], np.float32)

    def _encode(self, facts: ModelFacts, texts: Sequence[str]) -> list[_Encoded]:
        tokenizer = self._tokenizer(facts)
        return [_Encoded(position=position, tokens=found.ids) for position, found in enumerate(tokenizer.encode_batch_fast(list(texts)))]

    def _tokenizer(self, facts: ModelFacts) -> Tokenizer:
        key = (facts.name, facts.version)
        if key not in self._tokenizers:
            path = self._models / facts.name / facts.version / "tokenizer.json"
            try:
                tokenizer = Tokenizer.from_file(str(path))
            except Exception as error:  # the library raises nothing narrower
                raise ModelFailed(f"the model {facts.name} has no usable tokenizer.json beside its model file; import it again.") from error
            tokenizer.no_padding()
            most = facts.parameters.get("max_tokens", "")
            tokenizer.enable_truncation(max_length=int(most) if most.isdigit() else _DEFAULT_MAX_TOKENS)
            self._tokenizers[key] = tokenizer
        return self._tokenizers[key]


def _most_rows(facts: ModelFacts) -> int:
    return min(facts.max_batch_size, 64) if facts.max_batch_size else 64


def _bucket(tokens: int) -> int:
    return next((bucket for bucket in BUCKETS if bucket >= tokens), tokens)


def _batches(encoded: list[_Encoded], most_rows: int) -> list[list[_Encoded]]:
    by_bucket: dict[int, list[_Encoded]] = {}
    for each in encoded:
        by_bucket.setdefault(_bucket(len(each.tokens)), []).append(each)
    return [rows[start : start + most_rows] for _, rows in sorted(by_bucket.items()) for start in range(0, len(rows), most_rows)]


def _in_order(results: list[tuple[list[_Encoded], Vectors]], count: int) -> Vectors:
    width = results[0][1].shape[1] if results else 0
    vectors = np.empty((count, width), np.float32)
    for batch, rows in results:
        vectors[[each.position for each in batch]] = rows
    return vectors
