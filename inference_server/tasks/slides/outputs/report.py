"""analysis.json: what an analysis found, as docs/analysis.schema.json says. It holds nothing that changes from run to run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from inference_server.tasks.slides.findings import AnalysisPlan, Findings, Json
from inference_server.tasks.slides.grid import Grid
from inference_server.tasks.slides.tissue.mask import Tissue
from inference_server.tasks.slides.values import AnalysisRequest, SlideFacts

SCHEMA = "lamina.slide-analysis/1"
# Most unreadable tiles that are listed one by one; all are counted.
_MOST_LISTED = 1000


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What ran."""

    # As name, version and engine:precision; of several engines all.
    model: str
    version: str
    engine: str
    # SHA-256 of the model file; empty when unknown.
    sha256: str
    tiles_analyzed: int
    # Of these, by engine:precision.
    tiles_by_engine: Mapping[str, int]
    # Stored tiles that could not be decoded, as (level, column, row).
    unreadable: tuple[tuple[int, int, int], ...]


def render(
    *,
    request: AnalysisRequest,
    facts: SlideFacts,
    mpp: tuple[float, float],
    plan: AnalysisPlan,
    grid: Grid,
    tissue: Tissue,
    run: RunFacts,
    findings: Findings,
) -> str:
    """The report as JSON text with a line break at its end."""
    report: dict[str, Json] = {
        "schema": SCHEMA,
        "analysis": plan.name,
        "request_id": request.request_id,
        "model": _model(run, plan),
        "slide": _slide(facts, mpp, request),
        "grid": _grid(grid, plan),
        "tissue": _tissue(tissue),
        "measures": findings.measures,
        "tiles": {"analyzed": run.tiles_analyzed, "by_engine": run.tiles_by_engine, "unreadable": len(run.unreadable)},
        "unreadable": [_place(facts, *place) for place in run.unreadable[:_MOST_LISTED]],
        "notes": [*findings.notes, *_left_out(run, plan, tissue), *_inked(tissue)],
    }
    return json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _model(run: RunFacts, plan: AnalysisPlan) -> dict[str, Json]:
    return {
        "name": run.model,
        "version": run.version,
        "engine": run.engine,
        "sha256": run.sha256,
        "learned_weights": plan.learned_weights,
    }


def _left_out(run: RunFacts, plan: AnalysisPlan, tissue: Tissue) -> list[str]:
    """Why there is tissue and nothing was found."""
    if run.tiles_analyzed or not tissue.area_mm2:
        return []
    edge = plan.tile_size * plan.mpp
    return [f"No tile of {edge:g} µm has more than {plan.least_tissue:.0%} of tissue (least_tissue), so that none was analysed."]


def _inked(tissue: Tissue) -> list[str]:
    """That what is taken for ink may be the tissue."""
    pen = tissue.mm2_of(tissue.pen)
    if pen <= tissue.area_mm2:
        return []
    note = (
        f"More of the slide has colours of ink ({pen:.3g} mm²) than of tissue ({tissue.area_mm2:.3g} mm²), and ink is left out. "
        "Other stains than haematoxylin, eosin, DAB, PAS, Giemsa, silver and oil red may be taken for ink, and so may "
        'fluorescence; with "ink": "keep" in its manifest a tile model sees them.'
    )
    return [note]


def _grid(grid: Grid, plan: AnalysisPlan) -> dict[str, Json]:
    return {
        "level": grid.level,
        "mpp_x": grid.mpp_x,
        "mpp_y": grid.mpp_y,
        "level0_pixels_per_pixel": [grid.scale_x, grid.scale_y],
        "tile_size": plan.tile_size,
        "halo": plan.halo,
    }


def _tissue(tissue: Tissue) -> dict[str, Json]:
    folded = tissue.mm2_of(tissue.folded)
    return {
        "area_mm2": round(tissue.area_mm2, 6),
        "share": round(tissue.share, 6),
        "pen_mm2": round(tissue.mm2_of(tissue.pen), 6),
        "folded_mm2": round(folded, 6),
        "folded_share": round(folded / tissue.area_mm2, 6) if tissue.area_mm2 else None,
        "threshold_od": round(tissue.threshold, 6),
        "cell_um": round(tissue.grid.mpp_x, 4),
    }


def _slide(facts: SlideFacts, mpp: tuple[float, float], request: AnalysisRequest) -> dict[str, Json]:
    return {
        "uri": facts.uri,
        "vendor": facts.vendor,
        "reader": facts.reader,
        "width": facts.width,
        "height": facts.height,
        "levels": len(facts.levels),
        "mpp_x": mpp[0],
        "mpp_y": mpp[1],
        "mpp_source": "slide" if request.mpp is None and facts.mpp_x is not None else "request",
        "objective_power": facts.objective_power,
        "bounds_x": facts.bounds_x,
        "bounds_y": facts.bounds_y,
        "icc_profile_applied": request.apply_icc_profile and bool(facts.icc_profile),
    }


def _place(facts: SlideFacts, level: int, column: int, row: int) -> dict[str, Json]:
    """A stored tile: which one it is, and the rectangle that it covers, cut at the slide's edge."""
    stored = facts.levels[level]
    x, y = round(column * stored.tile_width * stored.downsample_x), round(row * stored.tile_height * stored.downsample_y)
    width, height = round(stored.tile_width * stored.downsample_x), round(stored.tile_height * stored.downsample_y)
    return {
        "level": level,
        "column": column,
        "row": row,
        "x": x,
        "y": y,
        "width": min(width, facts.width - x),
        "height": min(height, facts.height - y),
    }
