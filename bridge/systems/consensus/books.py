"""What a run has cost, over all its tries, and what it may cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.errors import PermanentError
from bridge.llm.port import Meter
from bridge.systems.consensus.options import RunOptions


class Books:
    """Keeps one meter a step."""

    def __init__(self, options: RunOptions, saved: Mapping[str, Any]) -> None:
        """`saved`: the facts of an earlier try."""
        self._options = options
        self._steps = {name: Meter.of(facts) for name, facts in saved.items()}

    def meter(self, step: str) -> Meter:
        """Where a step's calls are counted. Raises `PermanentError` when the run's budget is used up."""
        used, options = self.total(), self._options
        if 0 < options.most_tokens <= used.tokens:
            raise _overdrawn(f"has used {used.tokens} tokens of its {options.most_tokens}", "BRIDGE_LLM_RUN_TOKENS")
        if used.cost is not None and 0 < options.most_cost <= used.cost:
            raise _overdrawn(f"has cost {used.cost:.4f} of its {options.most_cost:g} US dollars", "BRIDGE_LLM_RUN_COST")
        return self._steps.setdefault(step, Meter())

    def of(self, step: str) -> Mapping[str, Any]:
        """What a step has cost."""
        return self._steps.get(step, Meter()).facts()

    def total(self) -> Meter:
        """What the run has cost."""
        whole = Meter()
        for meter in self._steps.values():
            whole.add(meter)
        return whole

    def saved(self) -> Mapping[str, Any]:
        """To be kept for a later try."""
        return {name: meter.facts() for name, meter in self._steps.items()}


def _overdrawn(problem: str, variable: str) -> PermanentError:
    return PermanentError(f"the run {problem} ({variable}); raise the bound and retry the run")
