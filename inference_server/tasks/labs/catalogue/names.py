"""The names that a catalogue gives to what is measured, folded, and which codes each name is for.

Codes that share a component (without its challenge, such as "post 75 g glucose PO") form a group: "Glucose" in serum, urine and so
on. A name found leads to a group; specimen, unit and the rest then choose the code in it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference_server.tasks.labs.catalogue.entries import Entry
from inference_server.tasks.labs.catalogue.lists import Lists
from inference_server.tasks.labs.parsing.normalise import fold, split_axes

# A text that names more groups than this is no name: "Chemistry", "Level".
_MOST_GROUPS = 12
_SHORT_NAME_END = re.compile(
    r"\s(?:SerPl|Ser|Plas|PPP|Bld|BldV|BldA|BldC|BldCo|Ur|CSF|Stl|Fld|Amn|Snv|Plr|Prt|Sal|Gast|Hair|Tiss|Spec|XXX|Isol|Smn|Spt|Nph|Thrt|Vag|Cvx|RBC|WBC"
    r"|#|NFr|MFr|VFr|SFr|Vel|EntVol|EntMass|24h|Qn|Ql)\b.*$|\s#.*$"
)
_PARENTHESIS = re.compile(r"^(.*?)\s*\(([^()]+)\)\s*(.*)$")


@dataclass(frozen=True, kw_only=True)
class Names:
    """Folded names and what they lead to; arrays are aligned with `texts` or with the catalogue's entries."""

    # Unique folded texts.
    texts: tuple[str, ...]
    # Unique texts to embed, without the words around the analyte; and for each text its place among them.
    meanings: tuple[str, ...]
    text_meaning: NDArray[np.int32]
    # For each (text, group) pair: the text, the group, and how well the text stands for the group, 0 to 1.
    pair_text: NDArray[np.int32]
    pair_group: NDArray[np.int32]
    pair_weight: NDArray[np.float32]
    # For each entry its group.
    entry_group: NDArray[np.int32]
    # For each text its pairs, and the entries that bear it as their own name.
    pairs: Lists
    owners: Lists


def base_component(component: str) -> str:
    """A component without its challenge and adjustments."""
    return component.split("^")[0].strip()


def build_names(entries: Sequence[Entry]) -> Names:
    """Gather the names of a catalogue; takes seconds for tens of thousands of codes."""
    groups: dict[str, int] = {}
    entry_group = np.empty(len(entries), np.int32)
    pairs: dict[tuple[str, int], float] = {}
    owners: dict[str, set[int]] = defaultdict(set)
    groups_of: dict[str, set[int]] = defaultdict(set)
    for number, entry in enumerate(entries):
        group = groups.setdefault(fold(base_component(entry.component) or entry.long_common_name), len(groups))
        entry_group[number] = group
        for text, weight, owned in _names_of(entry):
            pairs[text, group] = max(weight, pairs.get((text, group), 0.0))
            groups_of[text].add(group)
            if owned:
                owners[text].add(number)
    kept = {pair: weight for pair, weight in pairs.items() if len(groups_of[pair[0]]) <= _MOST_GROUPS}
    position = {text: number for number, text in enumerate(dict.fromkeys(text for text, _ in kept))}
    analytes = [split_axes(text)[1] or text for text in position]
    meanings = {text: number for number, text in enumerate(dict.fromkeys(analytes))}
    pair_text = np.array([position[text] for text, _ in kept], np.int32)
    return Names(
        texts=tuple(position),
        meanings=tuple(meanings),
        text_meaning=np.array([meanings[text] for text in analytes], np.int32),
        pair_text=pair_text,
        pair_group=np.array([group for _, group in kept], np.int32),
        pair_weight=np.array(list(kept.values()), np.float32),
        entry_group=entry_group,
        pairs=Lists.by_key(pair_text, len(position)),
        owners=Lists.of_each(sorted(owners.get(text, ())) for text in position),
    )


def _names_of(entry: Entry) -> Iterator[tuple[str, float, bool]]:
    """Folded name, weight, and whether it belongs to this entry rather than to its whole group."""
    component = base_component(entry.component)
    for text in _written(_component_names(component, entry)):
        yield text, 1.0, False
    if "/" in component:
        # "Lymphocytes/100 leukocytes" is printed as "Lymphocytes" with the unit %.
        for text in _written([component.split("/")[0]]):
            yield text, 0.9, False
    for text in _written([*entry.english_names, *entry.indonesian_names]):
        yield text, 1.0, True


def _component_names(component: str, entry: Entry) -> Iterator[str]:
    yield component
    long_stem = entry.long_common_name.split(" [")[0]
    if " [" in entry.long_common_name:
        yield long_stem
        inside = _PARENTHESIS.match(long_stem)
        if inside:
            yield f"{inside[1]} {inside[3]}"
            yield f"{inside[2]} {inside[3]}"
    short_stem = _SHORT_NAME_END.sub("", entry.short_name)
    if short_stem != entry.short_name:
        yield short_stem


def _written(texts: Iterable[str]) -> Iterator[str]:
    """Each text folded, whole and without the words of specimen, timing and method."""
    seen = set()
    for text in texts:
        whole = fold(text)
        for form in (whole, split_axes(whole)[1]):
            if form and form not in seen:
                seen.add(form)
                yield form
