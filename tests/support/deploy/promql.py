"""What an expression of PromQL asks for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser

# The parts of an expression that hold other expressions.
_PARTS = ("expr", "lhs", "rhs", "args", "vector_selector", "param")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One metric that an expression names."""

    # As it is exposed: bridge_jobs_total, bridge_job_seconds_bucket.
    sample: str
    # Each label that is matched, and the value where it must be equal; None for other matches.
    matched: tuple[tuple[str, str | None], ...]
    # What the aggregations around it keep or leave out, and what operators match on.
    grouped: frozenset[str]


def asked(expression: str) -> list[Asked]:
    """The metrics that an expression names. Raises `ValueError` when it is no PromQL."""
    return list(_asked(promql_parser.parse(expression), frozenset()))


def _asked(node: Any, grouped: frozenset[str]) -> Iterator[Asked]:
    if isinstance(node, promql_parser.VectorSelector):
        matchers = [(each.name, each.value if each.op == promql_parser.MatchOp.Equal else None) for each in node.matchers.matchers]
        yield Asked(sample=node.name, matched=tuple(matchers), grouped=grouped)
        return
    modifier = getattr(node, "modifier", None)
    if isinstance(node, promql_parser.AggregateExpr):
        # Inside, only the inner aggregation's labels are those of the metric.
        grouped = frozenset(modifier.labels) if modifier else frozenset()
    elif modifier is not None and modifier.matching:
        grouped |= frozenset(modifier.matching.labels)
    for part in _PARTS:
        found = getattr(node, part, None)
        for each in found if isinstance(found, list) else [] if found is None else [found]:
            yield from _asked(each, grouped)
