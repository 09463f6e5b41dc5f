"""The commands `bridge labs …`: what people say that names of lab tests mean."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from bridge.commands.common import AsJson, Limit, print_json, with_store
from bridge.errors import OverloadError, PermanentError
from bridge.records.lab_reviews import LabReview, LabReviews, ReviewState

if TYPE_CHECKING:
    from bridge.platforms.alias_feed import AliasFeed
    from bridge.store import Store

By = Annotated[str, typer.Option("--by", help="Who says so; kept with it.")]
_CODE = re.compile(r"\d{1,7}-\d")

commands = typer.Typer(help="Lab tests.", no_args_is_help=True)
review = typer.Typer(help="Names whose code was not believed, and what a person says that they mean.", no_args_is_help=True)
commands.add_typer(review, name="review")


@review.command("list")
def list_reviews(
    state: Annotated[ReviewState, typer.Option(help="Those that wait, or those that were decided.")] = ReviewState.OPEN,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """List names, the most often printed first."""
    from rich.console import Console

    from bridge.commands import display

    async def work(store: Store) -> None:
        found = await LabReviews(store.database).waiting(state, limit=limit)
        if as_json:
            print_json([asdict(each) for each in found])
        else:
            Console().print(display.reviews_table(found) if found else f"no name is {state}")

    with_store(work)


@review.command()
def accept(ids: Annotated[list[str], typer.Argument(help="Names, by their ids or how those start.", metavar="ID…")], by: By = "") -> None:
    """Say that the first candidate of a name is right. Every inference server goes by it from now on."""

    async def work(reviews: LabReviews, feed: AliasFeed) -> None:
        for start in ids:
            found = await reviews.find(start)
            if not found.candidates:
                raise PermanentError(f"{found.name!r} has no candidate to accept; say its code: bridge labs review correct {found.id} CODE")
            await _decide(reviews, feed, found, state=ReviewState.ACCEPTED, code=found.candidates[0].code, by=by)

    _with_reviews(work)


@review.command()
def correct(
    start: Annotated[str, typer.Argument(help="A name, by its id or how that starts.", metavar="ID")],
    code: Annotated[str, typer.Argument(help="The LOINC code that it means.")],
    by: By = "",
) -> None:
    """Say which code a name means, also one that was decided before. Every inference server goes by it from now on."""
    if not _CODE.fullmatch(code) or _check_digit(code.partition("-")[0]) != code[-1]:
        raise PermanentError(f"{code!r} is no LOINC code; expected digits, a hyphen and their check digit, such as 718-7")

    async def work(reviews: LabReviews, feed: AliasFeed) -> None:
        await _decide(reviews, feed, await reviews.find(start), state=ReviewState.CORRECTED, code=code, by=by)

    _with_reviews(work)


async def _decide(reviews: LabReviews, feed: AliasFeed, found: LabReview, *, state: ReviewState, code: str, by: str) -> None:
    """A server that cannot take it says so before it is kept; one that is away learns it from a running bridge."""
    try:
        told = await feed.tell_strictly(found.alias(code))
        where = f"; {told} inference server{'s' if told != 1 else ''} told"
    except OverloadError as error:
        where = f"; not every inference server could be told ({error}), a running bridge will do so"
    await reviews.decide(found, state=state, code=code, by=by)
    typer.echo(f"{found.id} {found.name!r} is {code}{where}")


def _check_digit(digits: str) -> str:
    """LOINC's: modulus 10 with doubled digits from the right (Luhn)."""
    doubled = [int(digit) * (2 - place % 2) for place, digit in enumerate(reversed(digits))]
    return str(-sum(value // 10 + value % 10 for value in doubled) % 10)


def _with_reviews(work: Callable[[LabReviews, AliasFeed], Awaitable[None]]) -> None:
    async def opened(store: Store) -> None:
        from bridge.platforms.alias_feed import AliasFeed
        from bridge.surroundings import server_trust

        reviews, settings = LabReviews(store.database), store.settings
        await work(reviews, AliasFeed(reviews, settings.inference, trust=server_trust(settings), every_seconds=settings.lab_alias_seconds))

    with_store(opened)
