"""CloudWatch's metric math, as far as deploy/terraform uses it, worked out at one moment."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_REPEAT = object()


@dataclass(frozen=True)
class _Missing:
    """A figure that is not told for this moment; one cannot reckon with it."""

    # Told for an earlier moment; none where it was never told.
    last: float | None


def _fill(value: float | _Missing, instead: Any) -> float | _Missing:
    if not isinstance(value, _Missing):
        return value
    if instead is not _REPEAT:
        return float(instead)
    return value if value.last is None else value.last


_FUNCTIONS = {"FILL": _fill, "REPEAT": _REPEAT, "IF": lambda condition, value, otherwise: value if condition else otherwise}


def worked_out(queries: Sequence[Mapping[str, Any]], figures: Mapping[str, float], earlier: Mapping[str, float] | None = None) -> float:
    """The one expression whose data is returned.

    `queries`: of an alarm or of a scaling policy, as Terraform tells them. `figures`: by metric and, after a slash, its queue; what is
    not there is missing. `earlier`: what was told for the moments before.
    """
    values: dict[str, float | _Missing] = {}
    told: list[float] = []
    # An expression may stand before what it names.
    left = list(queries)
    while left:
        ready = next(one for one in left if _names(one) <= values.keys())
        left.remove(ready)
        if ready.get("expression"):
            values[ready["id"]] = _expression(ready["expression"], values)
        else:
            metric = _metric(ready)
            values[ready["id"]] = figures.get(metric, _Missing((earlier or {}).get(metric)))
        if ready["return_data"]:
            told.append(float(values[ready["id"]]))  # type: ignore[arg-type]
    (result,) = told
    return result


def _names(query: Mapping[str, Any]) -> set[str]:
    return set(re.findall(r"\b[a-z]\w*", query.get("expression") or ""))


def _expression(text: str, values: Mapping[str, float | _Missing]) -> float:
    python = text.replace(" AND ", " and ").replace(" OR ", " or ")
    return float(eval(python, {"__builtins__": {}}, {**_FUNCTIONS, **values}))


def _metric(query: Mapping[str, Any]) -> str:
    stat = query["metric_stat"][0]["metric"][0] if query.get("metric_stat") else query["metric"][0]
    listed = stat.get("dimensions")
    dimensions = listed if isinstance(listed, dict) else {one["name"]: one["value"] for one in listed or ()}
    queue = dimensions.get("QueueName") or "/".join(dimensions[name] for name in ("queue", "state") if name in dimensions)
    return f"{stat['metric_name']}/{queue}" if queue else str(stat["metric_name"])
