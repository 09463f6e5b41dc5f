"""Tile models on pixels that a client already holds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from inference_server.engine.port import Tensors
from inference_server.errors import InvalidInput
from inference_server.scheduler.port import Caller, Inference, InferenceRequest, InferenceResponse, ModelFacts
from inference_server.tasks.slides import resolution
from inference_server.tasks.slides.grid import Grid, choose_grid, read_cells
from inference_server.tasks.slides.kinds import client_nuclei
from inference_server.tasks.slides.kinds.classifier import TileClassifier
from inference_server.tasks.slides.kinds.nucleus_filter import NucleusFilter
from inference_server.tasks.slides.kinds.tile_model import check_rows
from inference_server.tasks.slides.readers.image import ImageReader, decode, facts_of
from inference_server.tasks.slides.readers.regions import Regions
from inference_server.tasks.slides.values import ClientTile, Pixels, SlideLimits, TileFindings


async def decode_client_tiles(tiles: Sequence[ClientTile], limits: SlideLimits) -> list[Pixels]:
    """Their pixels, all of one size. Raises `InvalidInput`, for what passes a limit too."""
    if not tiles:
        raise InvalidInput("no tiles were sent; send at least one.")
    return await asyncio.to_thread(_decode_all, tiles, limits)


async def analyze_client_tiles(
    inference: Inference,
    tiles: Sequence[ClientTile],
    pixels: list[Pixels],
    mpp: float,
    *,
    model: TileClassifier | NucleusFilter,
    caller: Caller,
) -> tuple[list[TileFindings], str]:
    """Findings in the order of the tiles, of which `pixels` were decoded, and the model as name:version. Raises `InvalidInput`."""
    if isinstance(model, NucleusFilter):
        return await _find_nuclei(inference, tiles, pixels, mpp, model, caller)
    return await _classify(inference, tiles, pixels, model, caller)


async def _find_nuclei(
    inference: Inference, tiles: Sequence[ClientTile], pixels: list[Pixels], mpp: float, nuclei: NucleusFilter, caller: Caller
) -> tuple[list[TileFindings], str]:
    manifest = nuclei.manifest
    if resolution.sane(mpp) is None:
        raise InvalidInput(f"mpp is {mpp}; {nuclei.model} measures in micrometres and needs the tiles' own: 0.05 to 100.")
    grid, resampled = await _resample(pixels, mpp, nuclei)
    inputs = await asyncio.to_thread(client_nuclei.inputs, resampled, grid, manifest)
    response = await _infer_all(inference, inference.facts(nuclei.model), inputs, client_nuclei.outputs_of(manifest), caller)
    nuclei.check_outputs(response.outputs, inputs["tiles"].shape)
    found = await asyncio.to_thread(
        lambda: [
            client_nuclei.findings(tile.id, grid, {name: output[index] for name, output in response.outputs.items()}, manifest)
            for index, tile in enumerate(tiles)
        ]
    )
    return found, f"{response.model}:{response.version}"


async def _resample(pixels: list[Pixels], mpp: float, nuclei: NucleusFilter) -> tuple[Grid, list[Pixels]]:
    """The tiles at the resolution of the analysis."""
    facts = facts_of("the tile", pixels[0], (mpp, mpp))
    resolution.check_fine_enough(facts, (mpp, mpp), wanted=nuclei.manifest.mpp, analysis=nuclei.model)
    grid = choose_grid(facts, (mpp, mpp), nuclei.manifest.mpp)
    resampled = []
    for each in pixels:
        # Without white past the edge, which would count into the last row and column.
        whole = np.pad(each, ((0, 64), (0, 64), (0, 0)), mode="edge")
        regions = Regions(
            ImageReader(facts=facts_of("", whole, (mpp, mpp)), pixels=whole), cache_bytes=whole.nbytes * 4, most_unreadable=1.0
        )
        resampled.append(await read_cells(regions, grid, 0, 0, grid.width, grid.height))
    return grid, resampled


async def _classify(
    inference: Inference, tiles: Sequence[ClientTile], pixels: list[Pixels], classifier: TileClassifier, caller: Caller
) -> tuple[list[TileFindings], str]:
    edge = classifier.manifest.tile_size
    height, width, _ = pixels[0].shape
    if (width, height) != (edge, edge):
        raise InvalidInput(
            f"the tiles have {width} × {height} px; {classifier.model} takes {edge} × {edge} at {classifier.manifest.mpp:g} µm/px."
        )
    stacked = np.stack(pixels)
    normalise = await asyncio.to_thread(classifier.normaliser, stacked)
    facts = inference.facts(classifier.model)
    most = facts.max_batch_size or 1
    probabilities: list[list[float]] = []
    # As the network takes them they are several times as large: those of one call at a time.
    for some in (stacked[start : start + most] for start in range(0, len(stacked), most)):
        inputs = await asyncio.to_thread(classifier.inputs, some, normalise)
        response = await _infer_all(inference, facts, inputs, (classifier.output,), caller)
        probabilities += classifier.probabilities(response.outputs, len(some)).tolist()
    found = [
        TileFindings(id=tile.id, scores=dict(zip(classifier.manifest.classes, values, strict=True)))
        for tile, values in zip(tiles, probabilities, strict=True)
    ]
    return found, f"{facts.name}:{facts.version}"


async def _infer_all(
    inference: Inference, facts: ModelFacts, inputs: Tensors, outputs: tuple[str, ...], caller: Caller
) -> InferenceResponse:
    """One answer for all rows, asked in as many calls as the model's batch size needs."""
    rows = len(next(iter(inputs.values())))
    most = facts.max_batch_size or 1
    calls = [
        InferenceRequest(
            model=facts.name,
            version=facts.version,
            inputs={name: tensor[start : start + most] for name, tensor in inputs.items()},
            outputs=outputs,
            caller=caller,
        )
        for start in range(0, rows, most)
    ]
    responses = [await inference.infer(call) for call in calls]
    for number, response in enumerate(responses):
        check_rows(response.outputs, min(most, rows - number * most), facts.name)
    joined = {output: np.concatenate([response.outputs[output] for response in responses]) for output in responses[0].outputs}
    first = responses[0]
    return InferenceResponse(
        model=first.model,
        version=first.version,
        outputs=joined,
        engine=first.engine,
        queue_seconds=sum(response.queue_seconds for response in responses),
        compute_seconds=sum(response.compute_seconds for response in responses),
    )


def _decode_all(tiles: Sequence[ClientTile], limits: SlideLimits) -> list[Pixels]:
    decoded: list[Pixels] = []
    total = 0
    for tile in tiles:
        pixels = _decode(tile, limits)
        if decoded and pixels.shape != decoded[0].shape:
            raise InvalidInput(
                f"tile {tile.id} has {_size(pixels)} px and the first one {_size(decoded[0])}; all tiles must have the same size."
            )
        total += pixels.shape[0] * pixels.shape[1]
        if total > limits.most_request_pixels:
            raise InvalidInput(
                f"the tiles have more than {limits.most_request_pixels:,} px together. Send fewer of them in one request.",
                limit="request_pixels",
            )
        decoded.append(pixels)
    return decoded


def _decode(tile: ClientTile, limits: SlideLimits) -> Pixels:
    if tile.encoded:
        return decode(f"tile {tile.id}", tile.encoded, most_pixels=limits.most_tile_pixels)
    if tile.width < 1 or tile.height < 1:
        raise InvalidInput(
            f"tile {tile.id} has {len(tile.rgb)} bytes of RGB and is told to be {tile.width} × {tile.height} px; "
            "expected a width and a height from 1 px on, and width × height × 3 bytes. Or send JPEG or PNG as encoded."
        )
    expected = tile.width * tile.height * 3
    if len(tile.rgb) != expected:
        raise InvalidInput(
            f"tile {tile.id} has {len(tile.rgb)} bytes of RGB for {tile.width} × {tile.height} px; "
            f"expected width × height × 3, here {expected}. "
            "Or send JPEG or PNG as encoded."
        )
    if tile.width * tile.height > limits.most_tile_pixels:
        raise InvalidInput(
            f"tile {tile.id} has {tile.width} × {tile.height} px; at most {limits.most_tile_pixels:,} px are accepted.",
            limit="tile_pixels",
        )
    return np.frombuffer(tile.rgb, np.uint8).reshape(tile.height, tile.width, 3)


def _size(pixels: Pixels) -> str:
    return f"{pixels.shape[1]} × {pixels.shape[0]}"
