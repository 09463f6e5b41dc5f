"""CloudWatch's metric math, as far as deploy/terraform uses it, worked out at one moment."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_FUNCTIONS = {
    "FILL": lambda value, instead: instead if value is None else value,
    "IF": lambda condition, value, otherwise: value if condition else otherwise,
}


def worked_out(queries: Sequence[Mapping[str, Any]], figures: Mapping[str, float]) -> float:
    """The one expression whose data is returned. `figures`: by metric and, after a slash, its queue; what is not there is missing.

    `queries`: of an alarm or of a scaling policy, as Terraform tells them.
    """
    values: dict[str, float | None] = {}
    told: list[float] = []
    # An expression may stand before what it names.
    left = list(queries)
    while left:
        ready = next(one for one in left if _names(one) <= values.keys())
        left.remove(ready)
        value = _expression(ready["expression"], values) if ready.get("expression") else figures.get(_metric(ready))
        values[ready["id"]] = value
        if ready["return_data"]:
            told.append(float(value or 0))
    (result,) = told
    return result


def _names(query: Mapping[str, Any]) -> set[str]:
    return set(re.findall(r"\b[a-z]\w*", query.get("expression") or ""))


def _expression(text: str, values: Mapping[str, float | None]) -> float:
    python = text.replace(" AND ", " and ").replace(" OR ", " or ")
    return float(eval(python, {"__builtins__": {}}, {**_FUNCTIONS, **values}))


def _metric(query: Mapping[str, Any]) -> str:
    stat = query["metric_stat"][0]["metric"][0] if query.get("metric_stat") else query["metric"][0]
    listed = stat.get("dimensions")
    dimensions = listed if isinstance(listed, dict) else {one["name"]: one["value"] for one in listed or ()}
    queue = dimensions.get("QueueName") or "/".join(dimensions[name] for name in ("queue", "state") if name in dimensions)
    return f"{stat['metric_name']}/{queue}" if queue else str(stat["metric_name"])
