"""Which LOINC properties a unit of measurement fits: mg/dL is a mass concentration, mmol/L a substance concentration."""

from __future__ import annotations

import re
from functools import lru_cache

_FRACTIONS = frozenset(
    {"MFr", "NFr", "VFr", "SFr", "CFr", "AFr", "NFr.DF", "MFr.DF", "SatFr", "MRto", "RelACnc", "RelMCnc", "ACnc", "RelTime", "EntVol.CV"}
)
_RATIOS = frozenset({"MRto", "SRto", "Ratio", "Rto", "NRto", "CRto", "RelTime", "MCrto", "SCrto", "RelMCnc", "RelACnc", "RelRto"})

# Whole spellings that no rule below covers, folded by `fold_unit`.
_WHOLE: dict[str, frozenset[str]] = {
    "%": _FRACTIONS,
    "persen": _FRACTIONS,
    "g%": frozenset({"MCnc"}),
    "gm%": frozenset({"MCnc"}),
    "gr%": frozenset({"MCnc"}),
    "mg%": frozenset({"MCnc"}),
    "fl": frozenset({"EntVol", "EntMeanVol"}),
    "um3": frozenset({"EntVol"}),
    "pg": frozenset({"EntMass"}),
    "pg/cell": frozenset({"EntMass"}),
    "pg/sel": frozenset({"EntMass"}),
    "mm/h": frozenset({"Vel"}),
    "mm/hr": frozenset({"Vel"}),
    "mm/jam": frozenset({"Vel"}),
    "mm/1h": frozenset({"Vel"}),
    "inr": frozenset({"RelTime"}),
    "ratio": _RATIOS,
    "rasio": _RATIOS,
    "index": frozenset({"ACnc", "RelACnc", "Ratio", "Imp", "Rto"}),
    "s/co": frozenset({"ACnc", "RelACnc", "Ratio", "PrThr"}),
    "coi": frozenset({"ACnc", "RelACnc", "Ratio", "PrThr"}),
    "titer": frozenset({"Titr"}),
    "titre": frozenset({"Titr"}),
    "mom": frozenset({"MoM"}),
}

_NUMERATORS = (
    (re.compile(r"m?osm(ol)?s?"), "osmoles"),
    (re.compile(r"[munpfk]?mol"), "moles"),
    (re.compile(r"[mu]?eq"), "moles"),
    (re.compile(r"[mcunpfk]{0,2}(g|gm|gr|gram|grams)"), "mass"),
    (re.compile(r"mcg"), "mass"),
    (re.compile(r"[munk]?kat"), "catalytic"),
    (re.compile(r"[mukn]?u"), "units"),
    (re.compile(r"u?unit[s]?"), "units"),
    (re.compile(r"[mukn]?iu|mciu|miu|mlu"), "units"),
    (re.compile(r"(au|bau|ru|gplu?|mplu?|aplu?|eu|eia|gpl-u|mpl-u|arb|todd)"), "units"),
    (re.compile(r"[mudc]?l"), "volume"),
    (re.compile(r"(copies|copy|kopi|cop)"), "copies"),
    (re.compile(r"log(10)?(copies|iu)?"), "log"),
    (re.compile(r"(s|sec|secs|second|seconds|detik|dtk|min|mins|minutes?|menit)"), "time"),
    (
        re.compile(
            r"(|x?10[\^*e]?\d*|\d*|k|m|juta|ribu|lakhs?|lacs?|million|mill|mil|thou|thousands?|cells?|sel|#|count|[a-z]*10[\^*]?\d+)"
        ),
        "number",
    ),
)
_VOLUMES = re.compile(r"([mudcfnp]?l|ltr|liter|litre|mm3|mm\^3|cumm|cu\.?mm|mmk|mcl|cmm|cm3|c\.mm)")
_TIMES = re.compile(r"(\d*(h|hr|hrs|hour|hours|jam|d|day|hari|min|menit|vol|specimen)|tv)")
_MASSES = re.compile(r"([mcunpk]{0,2}(g|gm|gr)|gcr|gcreat(inine)?|mgcr(eat)?|ghb|kg.*)")
_FIELDS = re.compile(r"(hpf|lpf|lpb|lpk|lp|field|lapang.*|hp|lap)")

_BY_KINDS: dict[tuple[str, str], frozenset[str]] = {
    ("mass", "volume"): frozenset({"MCnc", "EntMCnc"}),
    ("moles", "volume"): frozenset({"SCnc", "MSCnc", "SCncDiff"}),
    ("units", "volume"): frozenset({"ACnc", "CCnc"}),
    ("catalytic", "volume"): frozenset({"CCnc"}),
    ("number", "volume"): frozenset({"NCnc"}),
    ("copies", "volume"): frozenset({"NCnc", "ACnc", "ThreshNum"}),
    ("log", "volume"): frozenset({"LnCnc", "LaCnc", "LsCnc"}),
    ("mass", "time"): frozenset({"MRat"}),
    ("moles", "time"): frozenset({"SRat"}),
    ("volume", "time"): frozenset({"VRat", "ArVRat"}),
    ("units", "time"): frozenset({"ARat", "CRat"}),
    ("number", "time"): frozenset({"NRat"}),
    ("mass", "mass"): frozenset({"MRto", "MCnt", "MCrto", "MFr"}),
    ("moles", "mass"): frozenset({"SRto", "SCnt", "MSCnt", "SCrto"}),
    ("units", "mass"): frozenset({"CCnt", "ACnt", "CRto", "ARto"}),
    ("osmoles", "mass"): frozenset({"Osmol"}),
    ("osmoles", "volume"): frozenset({"Osmol"}),
    ("mass", "moles"): frozenset({"MRto", "MSRto", "RatioMCrto"}),
    ("moles", "moles"): frozenset({"SRto", "SFr"}),
    ("number", "field"): frozenset({"Naric", "NCnc"}),
    ("mass", ""): frozenset({"MRat", "Mass", "EntMass"}),
    ("time", ""): frozenset({"Time"}),
    ("volume", ""): frozenset({"Vol", "VRat"}),
    ("units", ""): frozenset({"ACnc", "CCnc", "EntCat"}),
    ("moles", ""): frozenset({"SCnc", "SRat", "Sub"}),
    ("log", ""): frozenset({"LnCnc", "LaCnc", "LsCnc"}),
}


@lru_cache(maxsize=4096)
def properties_of(unit: str) -> frozenset[str]:
    """The LOINC properties that a printed unit fits; empty when the unit is absent or not understood."""
    folded = fold_unit(unit)
    if not folded:
        return frozenset()
    if folded in _WHOLE:
        return _WHOLE[folded]
    numerator, _, denominator = folded.partition("/")
    top = _kind(numerator)
    if top is None:
        return frozenset()
    return _BY_KINDS.get((top, _denominator_kind(denominator)), frozenset())


@lru_cache(maxsize=4096)
def fold_unit(unit: str) -> str:
    """One spelling for the many of a unit: `µg/dL`, `ug / dl` and `mcg/dL` are the same."""
    text = unit.strip().lower().replace("µ", "u").replace("μ", "u").replace("³", "3").replace("⁹", "9").replace("⁶", "6").replace("×", "x")
    text = re.sub(r"\{[^}]*\}|\[(?!iu\])[^]]*\]|[\s()]", "", text).replace("[iu]", "iu").replace(" per ", "/").replace("\\", "/")
    text = re.sub(r"^mcg|(?<=/)mcg", "ug", text).replace("mcl", "ul")
    text = re.sub(r"\.$", "", text)
    return re.sub(r"^\*?x?10\^?(\d+)", r"10^\1", text) if "/" in text else text


def _kind(numerator: str) -> str | None:
    for pattern, kind in _NUMERATORS:
        if pattern.fullmatch(numerator):
            return kind
    return None


def _denominator_kind(denominator: str) -> str:
    if not denominator:
        return ""
    first = denominator.partition("/")[0]
    for pattern, kind in ((_VOLUMES, "volume"), (_TIMES, "time"), (_MASSES, "mass"), (_FIELDS, "field")):
        if pattern.fullmatch(first):
            return kind
    if re.fullmatch(r"[munp]?mol.*", first):
        return "moles"
    # 100 mL, 10 L: a number before the unit.
    rest = re.sub(r"^\d+", "", first)
    return _denominator_kind(rest) if rest not in (first, "") else "unknown"
