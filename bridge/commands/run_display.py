"""A run of the consensus pipeline on the screen."""

from __future__ import annotations

import asyncio

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from bridge.http.runs import run_facts
from bridge.records.consensus import ConsensusRecords, RunRecord

_ENDED = frozenset({"completed", "failed"})
_MARKS = {"pending": "[dim]·[/]", "running": "[cyan]…[/]", "completed": "[green]✓[/]", "failed": "[red]✗[/]"}
_LOOK_SECONDS = 0.25


def run_table(run: RunRecord) -> Table:
    """A line a step, and what the run came to."""
    facts = run_facts(run)
    table = Table("", "step", "confidence", "note", box=None, header_style="bold", title=f"{run.id}: {run.status}", title_justify="left")
    scores = {review["persona_id"]: review["confidence_score"] for review in facts["persona_reviews"]}
    for step in facts["step_progress"]:
        persona = "security_guardian" if step["step_name"] == "review_security" else step["step_name"].removeprefix("review_")
        score = f"{scores[persona]:.2f}" if persona in scores else ""
        table.add_row(_MARKS.get(step["status"], "?"), step["step_name"], score, escape(step["error_message"] or ""))
    if run.decision_label:
        table.add_row("", f"[bold]{escape(run.decision_label)}[/]", f"{run.overall_weighted_confidence:.4f}", "")
    return table


async def follow_run(records: ConsensusRecords, run_id: str, console: Console) -> bool:
    """Show a run until it has ended; whether it was completed."""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            run = await records.find(run_id)
            if run is not None:
                live.update(run_table(run), refresh=True)
                if run.status in _ENDED:
                    return run.status == "completed"
            await asyncio.sleep(_LOOK_SECONDS)
