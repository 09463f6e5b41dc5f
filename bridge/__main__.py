"""The command line of the bridge."""

from __future__ import annotations

import typer

from bridge.commands import consensus, dead, documents, jobs, labs, rollups, running, submit, topology
from bridge.errors import BridgeError

_EXIT_USAGE = 2

app = typer.Typer(
    name="bridge",
    help="Takes jobs from queues, has the inference server do them, and sends the results on.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command(cls=running.ListsSettings)(running.run)
app.command()(running.migrate)
app.add_typer(submit.commands, name="submit")
submit.commands.command("consensus")(consensus.submit)
app.add_typer(consensus.runs, name="runs")
app.add_typer(rollups.commands, name="rollups")
app.add_typer(labs.commands, name="labs")
app.add_typer(documents.commands, name="documents")
app.command()(jobs.jobs)
app.add_typer(dead.commands, name="dead")
app.command()(jobs.results)
app.command()(jobs.republish)
app.add_typer(topology.commands, name="topology")


def main() -> None:
    """Run the command line. What the user did wrong is one clear line and exit status 2."""
    try:
        app()
    except BridgeError as error:
        typer.echo(f"bridge: {error}", err=True)
        raise SystemExit(_EXIT_USAGE) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
