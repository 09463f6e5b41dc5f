"""Makes printed tests out of catalogue entries, as laboratories write them: shortened, turned round, misspelt, without a unit."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from inference_server.tasks.labs.catalogue.entries import Entry
from inference_server.tasks.labs.catalogue.names import base_component
from inference_server.tasks.labs.parsing.normalise import PrintedTest

# Words for a system, in a specimen field and in names; an empty one tells nothing.
_SPECIMENS: dict[str, tuple[str, ...]] = {
    "ser/plas": ("Serum", "Blood", "Blood", "Blood", "Plasma", "Serum/Plasma", "Darah"),
    "ser": ("Serum", "Serum", "Blood", "Blood", "Darah"),
    "plas": ("Plasma", "Plasma", "Blood", "Blood"),
    "ppp": ("Plasma", "Blood", "Blood", "Citrated plasma", "Darah"),
    "bld": ("Blood", "Blood", "Blood", "Whole blood", "EDTA blood", "Darah"),
    "blda": ("Arterial blood", "Blood", "Blood"),
    "bldv": ("Venous blood", "Blood", "Blood"),
    "bldc": ("Capillary blood", "Blood"),
    "bldco": ("Cord blood",),
    "urine": ("Urine", "Urine", "Urine", "Urin", "Ur"),
    "urine sed": ("Urine", "Urine", "Urine sediment", "Urin"),
    "stool": ("Stool", "Feces", "Tinja"),
    "csf": ("CSF", "Cerebrospinal fluid", "Cerebrospinal Fluid (CSF)"),
    "body fld": ("Body fluid", "Other body fluid", "Fluid", "Pleural fluid", "Ascites", "Joint fluid"),
    "plr fld": ("Pleural fluid", "Pleural"),
    "periton fld": ("Ascites", "Peritoneal fluid"),
    "synv fld": ("Joint fluid", "Synovial fluid"),
    "amnio fld": ("Amniotic fluid",),
    "bone mar": ("Bone marrow",),
}
_UNITS: dict[str, tuple[str, ...]] = {
    "MCnc": ("mg/dL", "mg/dL", "g/dL", "ug/dL", "ng/mL", "pg/mL", "mg/L", "ug/mL", "ng/dL", "g/L"),
    "SCnc": ("mmol/L", "mmol/L", "mEq/L", "umol/L", "nmol/L", "pmol/L"),
    "ACnc": ("IU/mL", "U/mL", "IU/L", "mIU/mL", "uIU/mL", "mIU/L", "units"),
    "CCnc": ("U/L", "IU/L"),
    "NCnc": ("K/uL", "10^3/uL", "10^9/L", "#/uL", "/uL", "m/uL", "/cumm"),
    "NFr": ("%",),
    "NFr.DF": ("%",),
    "MFr": ("%",),
    "VFr": ("%",),
    "SFr": ("%",),
    "AFr": ("%",),
    "Titr": ("titer", ""),
    "MRat": ("mg/24h", "mg/day", "g/24 h"),
    "SRat": ("mmol/24h", "mmol/day"),
    "MRto": ("mg/g", "mg/mg", "ratio", "mg/g creat"),
    "SRto": ("ratio", "mmol/mol"),
    "Ratio": ("ratio", ""),
    "RelTime": ("", "ratio", "INR"),
    "Time": ("sec", "s", "seconds"),
    "EntVol": ("fL",),
    "EntMass": ("pg",),
    "EntMCnc": ("g/dL", "%"),
    "Vel": ("mm/hr", "mm/jam"),
    "PPres": ("mm Hg", "mmHg"),
    "LsCnc": ("units", ""),
    "Naric": ("#/hpf", "/hpf", "/lpf", "/lpb"),
    "Osmol": ("mOsm/kg",),
    "Temp": ("C", "deg C"),
    "Vol": ("mL",),
}
_METHODS = {
    "automated count": ("automated", "auto"),
    "manual count": ("manual", "manual count"),
    "calculated": ("calculated", "calc", "(calc)"),
    "ia": ("EIA", "ELISA", "IA"),
    "ia.rapid": ("rapid", "ICT"),
    "probe.amp.tar": ("PCR", "NAAT"),
    "if": ("IFA", "IF"),
    "ib": ("western blot", "immunoblot"),
    "aggl": ("agglutination", "latex"),
    "culture": ("culture",),
    "test strip": ("dipstick", "strip"),
    "screen": ("screen",),
    "confirm": ("confirmation",),
    "electrophoresis": ("electrophoresis",),
}
_HEADINGS = {
    "CHEM": ("Chemistry", "Chemistry", "Kimia Klinik", "Biochemistry"),
    "HEM/BC": ("Hematology", "Hematology", "Hematologi", "Haematology"),
    "COAG": ("Hematology", "Coagulation"),
    "DRUG/TOX": ("Chemistry", "Toxicology"),
    "MICRO": ("Microbiology", "Serology", "Chemistry", "Immunology"),
    "SERO": ("Serology", "Immunology", "Chemistry"),
    "UA": ("Urinalysis", "Hematology", "Urinalisis"),
}
_PARTS = re.compile(r"^(?P<whole>.+?)\.(?P<part>[a-z][\w .]*)$", re.IGNORECASE)
_COUNTED = re.compile(r"/100 (?:leukocytes|WBC|cells|lymphocytes)$", re.IGNORECASE)
_ANTIBODY = re.compile(r"^(?P<of>.+?) Ab(?:\.(?P<kind>Ig[AEGM]))?$")
_ANTIGEN = re.compile(r"^(?P<of>.+?) Ag$")
# Share of units that belong to another property: laboratories err too.
_WRONG_UNIT = 0.05
_NOISE = ("Test", "Level", "Total", "(Serum)", "Assay", "#", "*", "Result", "Quantitative", "- Hasil")


class Printer:
    """Writes entries as a laboratory would. The same seed writes the same."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def print(self, entry: Entry, *, text: str = "") -> PrintedTest:
        """One printed test of an entry; `text` is its name, or empty for one made of its axes."""
        # A list of names alone says nothing of what it leaves out; a whole report does.
        is_bare = self._chance(0.4)
        has_field = not is_bare and self._chance(0.75)
        specimen = self._specimen(entry, field=has_field)
        name = self._named(entry, text)
        if not has_field and specimen:
            name = self._one((f"{name}, {specimen}", f"{name} ({specimen})", f"{specimen} {name}", f"{name} {specimen}"))
        name = self._with_axes(name, entry)
        return PrintedTest(
            name=self._misprinted(name) or name,
            specimen=specimen if has_field else "",
            unit=self._unit(entry) if not is_bare and self._chance(0.9) else "",
            value=self._value(entry) if not is_bare and self._chance(0.2) else "",
            heading=self._heading(entry) if not is_bare and self._chance(0.5) else "",
        )

    def _chance(self, share: float) -> bool:
        return bool(self._random.random() < share)

    def _one(self, texts: Sequence[str]) -> str:
        return texts[int(self._random.integers(len(texts)))]

    def _named(self, entry: Entry, text: str) -> str:
        names = (*entry.english_names, *entry.indonesian_names)
        name = text or self._one(self._forms(entry))
        if names and self._chance(0.12):
            other = self._one(names)
            name = f"{name} ({other})" if self._chance(0.7) else f"{other} - {name}"
        return name

    def _forms(self, entry: Entry) -> list[str]:
        """Ways to say a component; those of LOINC's grammar are turned into what people say."""
        component = base_component(entry.component) or entry.long_common_name
        counted = _COUNTED.sub("", component)
        forms = [counted, f"% {counted}", f"{counted} %"] if counted != component else [component]
        if (part := _PARTS.match(component)) is not None:
            whole, piece = part["whole"], part["part"].removeprefix("in ")
            forms = [f"{whole}, {piece}", f"{piece} {whole}", f"{whole} {piece}", f"{whole} ({piece})", f"{whole[:4]} {piece}"]
        if (antibody := _ANTIBODY.match(component)) is not None:
            kind, of = antibody["kind"] or "", antibody["of"]
            forms = [f"{of} {kind} Antibody", f"{of} {kind}", f"Anti {of} {kind}", f"{of} Ab {kind}", f"{kind} {of}"]
        if (antigen := _ANTIGEN.match(component)) is not None:
            forms = [f"{antigen['of']} Antigen", f"{antigen['of']} Ag"]
        if "/" in component and counted == component:
            first, _, second = component.partition("/")
            forms += [f"{first} {second} ratio", f"{first}/{second}", f"{first} to {second} ratio"]
        short = re.split(r"\s(?=[A-Z#])", entry.short_name)[0] if entry.short_name else ""
        return [*forms, *forms, *((short,) if len(short) > 1 else ()), entry.long_common_name.split(" [")[0]]

    def _with_axes(self, name: str, entry: Entry) -> str:
        if (time := entry.time_aspect.removesuffix("H")).isdigit() and self._chance(0.85):
            name = self._one((f"{time} hr {name}", f"{name} {time} hour", f"{time}h {name}"))
        if "^" in entry.component and self._chance(0.9):
            challenge = entry.component.partition("^")[2].replace("post CFst", "fasting").replace("^", " ")
            name = self._one((f"{name} {challenge}", f"{name}, {challenge}"))
        words = _METHODS.get(entry.method.lower())
        likely = 0.12 if entry.method in ("Automated count", "IA") else 0.5
        if words and self._chance(likely):
            name = f"{name} {self._one(words)}"
        elif entry.method and not words and self._chance(0.5):
            name = f"{name} {entry.method}"
        if entry.property == "NCnc" and entry.scale == "Qn" and self._chance(0.25):
            name = self._one((f"{name} count", f"Absolute {name}", f"{name} #", f"Jumlah {name}"))
        if entry.property == "PrThr" and self._chance(0.2):
            name = self._one((f"{name} qualitative", f"{name} screen", f"{name}, Qual"))
        return name

    def _specimen(self, entry: Entry, *, field: bool) -> str:
        system = entry.system.lower()
        usual = system in ("ser/plas", "ser", "plas", "ppp", "bld", "")
        if not self._chance(0.85 if field else 0.12 if usual else 0.92):
            return ""
        return self._one(_SPECIMENS.get(system, (entry.system,)))

    def _unit(self, entry: Entry) -> str:
        if self._chance(_WRONG_UNIT):
            return self._one(_UNITS[self._one(tuple(_UNITS))])
        if entry.units and self._chance(0.7):
            return self._one(entry.units)
        return self._one(_UNITS.get(entry.property, ("",)))

    def _heading(self, entry: Entry) -> str:
        if entry.system.lower().startswith("bld") and entry.property in ("PPres", "SCnc") and self._chance(0.4):
            return "Blood Gas"
        if entry.system.lower() == "urine" and self._chance(0.3):
            return "Urinalysis"
        return self._one(_HEADINGS.get(entry.loinc_class, ("",)))

    def _value(self, entry: Entry) -> str:
        if entry.property == "Titr":
            return f"1:{2 ** int(self._random.integers(2, 10))}"
        if entry.scale == "Ord":
            return self._one(("Negative", "Positive", "Negatif", "Non Reaktif", "+1"))
        return f"{self._random.random() * 200:.1f}" if entry.scale == "Qn" else ""

    def _misprinted(self, name: str) -> str:
        words = name.split()
        if len(words) > 1 and self._chance(0.12):
            del words[int(self._random.integers(len(words)))]
        if len(words) > 1 and self._chance(0.15):
            cut = int(self._random.integers(1, len(words)))
            words = [*words[cut:-1], f"{words[-1].strip(',')},", *words[:cut]] if self._chance(0.5) else [*words[cut:], *words[:cut]]
        if self._chance(0.15):
            place = int(self._random.integers(len(words)))
            if len(words[place]) > 5:
                words[place] = words[place][: int(self._random.integers(3, len(words[place]) - 1))]
        if self._chance(0.15):
            place = int(self._random.integers(len(words)))
            words[place] = self._misspelt(words[place])
        if self._chance(0.08):
            words.append(self._one(_NOISE))
        text = " ".join(words).strip(" ,")
        return self._one((text.upper(), text.lower(), text.title())) if self._chance(0.3) else text

    def _misspelt(self, word: str) -> str:
        if len(word) < 5:
            return word
        place = int(self._random.integers(1, len(word) - 2))
        before, one, two, after = word[:place], word[place], word[place + 1], word[place + 2 :]
        return self._one((before + two + one + after, before + two + after, before + one + one + two + after))
