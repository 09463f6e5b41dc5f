"""Which codes a heading of a report speaks for: under "Hematology" stand blood counts, under "Kimia Klinik" the clinical chemistry."""

from __future__ import annotations

import re

_CHEMISTRY = ("CHEM", "DRUG/TOX", "CHAL", "ALLERGY", "SERO")
_HEMATOLOGY = ("HEM/BC", "COAG", "BLDBK", "CELLMARK")
# Stems of folded headings, the classes of LOINC and the systems that they speak for. The first that fits counts.
_HEADINGS: tuple[tuple[re.Pattern[str], tuple[str, ...], tuple[str, ...]], ...] = (
    (re.compile(r"gas|agd|astrup"), (), ("bld", "blda", "bldv", "bldc", "bldco", "bldmv")),
    (re.compile(r"urin|stool|feces|tinja|feses"), (), ("urine", "urine sed", "stool")),
    (re.compile(r"coag|koag|hemosta|clotting"), ("COAG", "HEM/BC"), ()),
    (re.compile(r"hemat|haemat|darah lengkap|blood count|cbc"), _HEMATOLOGY, ()),
    (re.compile(r"micro|mikro|bakteri|virol|parasit|molec|molek"), ("MICRO", "ABXBACT"), ()),
    (re.compile(r"serol|immun|imun|infe"), ("SERO", "MICRO", "CHEM"), ()),
    (re.compile(r"toxi|toksi|drug|obat"), ("DRUG/TOX",), ()),
    (re.compile(r"chem|kimia|biochem|endocr|hormon|liver|kidney|lipid|elektrolit|electrolyte"), _CHEMISTRY, ()),
)


def heading_fit(heading: str, loinc_class: str, system: str) -> float:
    """1 when the heading speaks for a class or system, -1 when it speaks for others, 0 when nothing is known. `system`: lower case."""
    text = heading.lower()
    if not text:
        return 0.0
    for pattern, classes, systems in _HEADINGS:
        if pattern.search(text):
            if systems:
                return 1.0 if system in systems else -1.0
            return 0.0 if not loinc_class else 1.0 if loinc_class.removeprefix("PANEL.") in classes else -1.0
    return 0.0
