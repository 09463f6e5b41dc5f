"""Examples to learn from: printed tests made out of a catalogue, each with the candidates that are found and the right one."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference_server.scheduler.port import Caller
from inference_server.tasks.labs.catalogue.catalogue import Catalogue, joined_catalogue
from inference_server.tasks.labs.catalogue.entries import Entry
from inference_server.tasks.labs.catalogue.fit import Features
from inference_server.tasks.labs.catalogue.names import base_component
from inference_server.tasks.labs.catalogue.vectors import embedded_names
from inference_server.tasks.labs.embed import Embedder
from inference_server.tasks.labs.matching.ranker import Curve
from inference_server.tasks.labs.matching.retrieve import Query, RetrievalSettings, Retriever
from inference_server.tasks.labs.matching.signals import Signals
from inference_server.tasks.labs.parsing.normalise import PrintedTest, fold, split_axes
from inference_server.tasks.labs.training.printed import Printer

CALLER = Caller(client="training", priority=1_000)
_AT_ONCE = 32
# Components are dealt to ten folds: the first is kept to calibrate on, the second to measure on.
_FOLDS = 10
CALIBRATION, MEASURED = 0, 1


def _words(text: str) -> list[str]:
    return text.split()


# Words of reports that name no test, in English and Indonesian.
_OTHER_WORDS = _words(
    "invoice total page patient name address doctor date birth phone hospital clinic signature verified printed "
    "discount payment amount tax number room ward insurance referral comment note remark approved specialist consultant "
    "street city halaman pasien nama alamat dokter tanggal lahir telepon rumah sakit klinik tanda tangan jumlah bayar "
    "diskon kamar asuransi rujukan catatan keterangan nomor laboratorium penanggung jawab kota jalan registrasi umur "
    "kelamin pengirim diterima selesai cetak kesimpulan saran"
)
_NUMBERED = 0.3
_COMMONEST = 150


@dataclass(frozen=True, kw_only=True)
class Example:
    """A printed test that was made, and its candidates."""

    test: PrintedTest
    entry: Entry
    columns: Features
    # Component group of each candidate.
    groups: NDArray[np.int32]
    # Place of the right one; -1 when it was not found.
    right: int
    # Of its component, 0 to 9.
    fold: int
    # Whether nothing of the catalogue is meant.
    absent: bool = False


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A printed test to make an example of."""

    test: PrintedTest
    # Place in the catalogue.
    entry: int
    # Folded names that are hidden from the retrieval, lest the answer be read off.
    hidden: frozenset[str] = frozenset()
    # Whether it is no test of the catalogue at all.
    absent: bool = False


def bare(catalogue: Catalogue) -> Catalogue:
    """The same codes without our names, ranks, units and categories: what is learnt there holds for tests that we have not listed."""
    entries = [replace(entry, english_names=(), indonesian_names=(), rank=0, category="", units=()) for entry in catalogue.entries]
    return joined_catalogue(entries, version=f"{catalogue.version}-bare", abbreviations=catalogue.abbreviations)


def named_tests(catalogue: Catalogue, printer: Printer, *, hide: bool) -> Iterator[Wanted]:
    """A printed test for each name of each listed code; with `hide` the name itself is hidden."""
    for place, entry in enumerate(catalogue.entries):
        if entry.rank:
            # The commonest are printed everywhere.
            times = 2 if entry.rank <= _COMMONEST else 1
            for name in (*entry.english_names, *entry.indonesian_names) * times:
                folded = fold(name)
                yield Wanted(
                    test=printer.print(entry, text=name),
                    entry=place,
                    hidden=frozenset((folded, split_axes(folded)[1])) if hide else frozenset(),
                )


def made_tests(catalogue: Catalogue, printer: Printer, common: NDArray[np.float64], count: int, seed: int) -> Iterator[Wanted]:
    """Printed tests made of the axes of codes drawn by `common`, their weights."""
    random = np.random.default_rng(seed)
    for place in random.choice(len(catalogue.entries), count, p=common / common.sum()):
        yield Wanted(test=printer.print(catalogue.entries[int(place)]), entry=int(place))


def other_lines(count: int, seed: int) -> Iterator[Wanted]:
    """Lines of a report that are no tests."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        words = random.choice(_OTHER_WORDS, int(random.integers(1, 5)), replace=False)
        number = f" {int(random.integers(1, 999))}" if random.random() < _NUMBERED else ""
        yield Wanted(test=PrintedTest(name=" ".join(words) + number), entry=0, absent=True)


def without_component(example: Example) -> Example:
    """The same test in a catalogue that lacks its component: nothing is right."""
    others = example.groups != example.groups[example.right]
    return replace(example, columns=example.columns[others], groups=example.groups[others], right=-1, absent=True)


async def examples(
    wanted: Sequence[Wanted],
    catalogue: Catalogue,
    prior: Curve,
    embedder: Embedder,
    models: Path,
    model: str,
    progress: Callable[[int], None],
) -> list[Example]:
    """Retrieve for each; `progress` gets how many are done."""
    vectors = await embedded_names(catalogue.names.meanings, embedder, models, model=model)
    retriever = Retriever(catalogue, vectors, RetrievalSettings())
    signals = Signals(catalogue.entries, catalogue.table)
    common = prior.log_odds(signals.facts)
    queries = [retriever.read(each.test) for each in wanted]
    texts = list(dict.fromkeys(query.meaning for query in queries))
    rows, _ = await embedder.embed(texts, model=model, caller=CALLER)
    place = {text: number for number, text in enumerate(texts)}
    found: list[Example] = []
    for start in range(0, len(wanted), _AT_ONCE):
        some = queries[start : start + _AT_ONCE]
        meanings = retriever.meanings(rows[[place[query.meaning] for query in some]])
        for each, query, meaning in zip(wanted[start : start + _AT_ONCE], some, meanings, strict=True):
            found.append(_example(each, query, retriever, meaning, signals, common, catalogue))
        progress(len(found))
    return found


def _example(
    wanted: Wanted, query: Query, retriever: Retriever, meaning: Features, signals: Signals, common: Features, catalogue: Catalogue
) -> Example:
    entry = catalogue.entries[wanted.entry]
    found = retriever.retrieve(query, meaning, hidden=wanted.hidden)
    lists = signals.columns([query], [found], common)
    kept, columns = lists.kept[0], lists.rows
    places = np.flatnonzero((found.entries[kept] == wanted.entry) & (not wanted.absent))
    component = fold(base_component(entry.component))
    return Example(
        test=wanted.test,
        entry=entry,
        columns=columns,
        groups=catalogue.table.group[found.entries[kept]],
        right=int(places[0]) if len(places) else -1,
        fold=zlib.crc32((wanted.test.name if wanted.absent else component).encode()) % _FOLDS,
        absent=wanted.absent,
    )
