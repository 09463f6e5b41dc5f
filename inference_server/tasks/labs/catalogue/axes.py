"""LOINC's axes read out of a long common name, for rows of a table that lack them."""

from __future__ import annotations

import re

_PROPERTIES = {
    "mass/volume": "MCnc",
    "moles/volume": "SCnc",
    "units/volume": "ACnc",
    "enzymatic activity/volume": "CCnc",
    "#/volume": "NCnc",
    "presence": "PrThr",
    "titer": "Titr",
    "mass ratio": "MRto",
    "molar ratio": "SRto",
    "ratio": "Ratio",
    "mass fraction": "MFr",
    "volume fraction": "VFr",
    "molar fraction": "SFr",
    "pure number fraction": "NFr",
    "mass/time": "MRat",
    "moles/time": "SRat",
    "entitic mass": "EntMass",
    "entitic volume": "EntVol",
    "#/area": "Naric",
    "volume rate/area": "ArVRat",
    "volume": "Vol",
    "ph": "LsCnc",
    "identifier": "Prid",
    "interpretation": "Imp",
    "osmolality": "Osmol",
    "log #/volume": "LnCnc",
    "log units/volume": "LaCnc",
    "catalytic activity/volume": "CCnc",
    "moles/mass": "SCnt",
    "mass/mass": "MCnt",
    "type": "Type",
    "time": "Time",
}
_SYSTEMS = {
    "serum or plasma": "Ser/Plas",
    "serum": "Ser",
    "plasma": "Plas",
    "platelet poor plasma": "PPP",
    "blood": "Bld",
    "serum, plasma or blood": "Ser/Plas/Bld",
    "arterial blood": "BldA",
    "venous blood": "BldV",
    "capillary blood": "BldC",
    "cord blood": "BldCo",
    "urine": "Urine",
    "urine sediment": "Urine sed",
    "stool": "Stool",
    "cerebral spinal fluid": "CSF",
    "body fluid": "Body fld",
    "amniotic fluid": "Amnio fld",
    "synovial fluid": "Synv fld",
    "pleural fluid": "Plr fld",
    "peritoneal fluid": "Periton fld",
    "semen": "Semen",
    "sputum": "Sputum",
    "saliva": "Saliva",
    "bone marrow": "Bone mar",
    "tissue": "Tiss",
    "red blood cells": "RBC",
    "throat": "Thrt",
    "nose": "Nose",
    "nasopharynx": "Nph",
}
_NAME = re.compile(
    r"^(?P<component>.+?)"
    r"(?:\s+\[(?P<property>[^]]+)\])?"
    r"(?:\s+\([^)]*\))?"
    r"(?:\s+(?:in|of|on)\s+(?P<system>[^[]+?))?"
    r"(?:\s+by\s+(?P<method>.+))?$"
)
_TIMED = re.compile(r"^(?P<hours>\d+) hour (?P<system>.+)$", re.IGNORECASE)
_QUALITATIVE = frozenset({"PrThr", "Imp", "Type", "Prid"})


def from_long_name(name: str) -> dict[str, str]:
    """Component, property, time aspect, system, scale and method, as far as the name tells them; empty where it does not."""
    match = _NAME.match(name.strip())
    if match is None:
        return {}
    parts = {key: (value or "").strip() for key, value in match.groupdict().items()}
    timed = _TIMED.match(parts["system"])
    system = timed["system"] if timed else parts["system"]
    known = _SYSTEMS.get(system.lower().removesuffix(" by automated count"), "")
    if parts["system"] and not known:
        # "Cholesterol in LDL" names no specimen: the words belong to the component.
        return {"component": name.split(" [")[0].strip(), "property": _PROPERTIES.get(parts["property"].lower(), "")}
    code = _PROPERTIES.get(parts["property"].lower(), "")
    return {
        "component": parts["component"],
        "property": code,
        "time_aspect": f"{timed['hours']}H" if timed else "Pt",
        "system": known,
        "scale": "" if not code else "Ord" if code in _QUALITATIVE else "Qn",
        "method": parts["method"],
    }
