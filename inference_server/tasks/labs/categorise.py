"""Puts a test into one of the fourteen categories that laboratory reports are shown by."""

from __future__ import annotations

import re
from collections.abc import Sequence

from inference_server.tasks.labs.catalogue.entries import Entry
from inference_server.tasks.labs.catalogue.names import base_component
from inference_server.tasks.labs.matching.match import Match, Status
from inference_server.tasks.labs.matching.retrieve import Query
from inference_server.tasks.labs.parsing.normalise import fold

LIVER = "Liver Function Tests (LFT)"
KIDNEY = "Kidney Function Tests (KFT)"
BLOOD_COUNT = "Complete Blood Count (CBC)"
ELECTROLYTES = "Electrolyte Panel"
CARDIAC = "Cardiac Markers"
DIABETES = "Diabetes Panel"
LIPIDS = "Lipid Profile"
THYROID = "Thyroid Profile"
HORMONES = "Hormonal Panel"
VITAMINS = "Vitamin & Mineral Panel"
INFECTION = "Infection Markers"
URINE_STOOL = "Urine & Stool Tests"
TUMOUR = "Tumor Markers"
OTHERS = "Others"
CATEGORIES = (
    LIVER, KIDNEY, BLOOD_COUNT, ELECTROLYTES, CARDIAC, DIABETES, LIPIDS, THYROID, HORMONES, VITAMINS, INFECTION, URINE_STOOL, TUMOUR, OTHERS
)  # fmt: skip

_URINE_SYSTEMS = frozenset({"urine", "urine sed", "stool"})
# Folded stems, looked for at the start of words of name and component, in this order.
_KEYWORDS: tuple[tuple[str, str], ...] = (
    (
        TUMOUR,
        (
            "cancer ag|carcinoembryonic|cea|alpha fetoprotein|alpha 1 fetoprotein|afp|ca 125|ca 19|ca 15|ca125|ca199|"
            "ca153|prostate specific|psa|tumor|he4|nse|cyfra"
        ),
    ),
    (THYROID, "thyro|tiroid|tsh|triiodo|ft3|ft4|t3|t4|antithyroid|thyroglobulin"),
    (DIABETES, "glucose|glukosa|gula|hemoglobin a1c|hba1c|a1c|insulin|c peptide|fructosamine|homa|diabet"),
    (LIPIDS, "cholesterol|kolesterol|triglycerid|trigliserid|ldl|hdl|vldl|lipoprotein|apolipoprotein|lipid|lemak"),
    (CARDIAC, "troponin|creatine kinase|ck mb|ckmb|cpk|natriuretic|bnp|probnp|myoglobin|homocystein|cardiac|jantung"),
    (
        LIVER,
        (
            "alanine amino|aspartate amino|sgot|sgpt|alt|ast|bilirubin|alkaline phosph|gamma glutamyl|ggt|albumin|"
            "globulin|protein total|total protein|liver|hati|hepatic|ammonia"
        ),
    ),
    (KIDNEY, "creatinin|kreatinin|urea|ureum|bun|uric|asam urat|urate|cystatin|glomerular|egfr|gfr|kidney|ginjal|renal"),
    (
        ELECTROLYTES,
        (
            "sodium|natrium|potassium|kalium|chloride|klorida|bicarbonate|bikarbonat|elektrolit|electrolyte|anion gap|"
            "osmolality|carbon dioxide|tco2"
        ),
    ),
    (
        VITAMINS,
        (
            "vitamin|calcidiol|25 hydroxy|cobalamin|folat|folic|ferritin|iron|besi|tibc|uibc|transferrin|zinc|seng|"
            "copper|selenium|magnesium|calcium|kalsium|phosph|fosf|mineral|retinol|tocopherol"
        ),
    ),
    (
        HORMONES,
        (
            "cortisol|kortisol|testosteron|estradiol|estrogen|progesteron|prolactin|prolaktin|follitropin|fsh|lutropin|lh|"
            "luteinizing|gonadotropin|hcg|parathy|pth|aldosteron|renin|growth hormone|somatotropin|corticotropin|acth|"
            "dhea|dehydroepi|androst|mullerian|amh|hormon|igf"
        ),
    ),
    (
        INFECTION,
        (
            "hepatitis|hbsag|hbs|hcv|hiv|virus|dengue|ns1|widal|typh|salmonella|syphilis|vdrl|tpha|treponema|malaria|"
            "plasmodium|tubercul|mycobact|covid|sars|toxo|rubella|cmv|herpes|chlamyd|gonorr|helicobacter|pylori|"
            "leptospir|streptoly|aso|asto|c reactive|crp|procalcitonin|prokalsitonin|culture|kultur|bacteri identified|"
            "fungus|candida|parasit|filaria|influenza|brucella"
        ),
    ),
    (
        BLOOD_COUNT,
        (
            "hemoglobin|hematocrit|hematokrit|leukocyt|leukosit|wbc|rbc|eryth?rocyte|eritrosit|platelet|trombosit|"
            "thrombocyt|neutrophil|neutrofil|lymphocyt|limfosit|monocyt|monosit|eosinophil|eosinofil|basophil|basofil|mcv|"
            "mch|mchc|rdw|mpv|pdw|pct|reticulocyt|retikulosit|band form|segmented|sedimentation|laju endap|led|esr|hb|"
            "ht|hct|blast|blood count|darah lengkap"
        ),
    ),
)
# A stem this short must be the whole word: "alt" is not in "alternaria".
_LONGEST_WHOLE_WORD = 4


def _pattern(stems: str) -> re.Pattern[str]:
    return re.compile("|".join(rf"\b{stem}\b" if len(stem) <= _LONGEST_WHOLE_WORD else rf"\b{stem}" for stem in stems.split("|")))


_PATTERNS = tuple((category, _pattern(stems)) for category, stems in _KEYWORDS)
_CLASSES = {"MICRO": INFECTION, "UA": URINE_STOOL, "PANEL.UA": URINE_STOOL, "PANEL.MICRO": INFECTION, "ABXBACT": INFECTION}
# Confidence of each way to a category, times that of the match where there is one.
_BY_KEYWORD = 0.7
_BY_CLASS = 0.5
_BY_SPECIMEN = 0.6
_OTHERS_WITHOUT_SIGN = 0.5


class Categoriser:
    """Categories from the matched entry, else from the words of the name."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        """`entries`: the catalogue; those with a category teach it to others with the same component."""
        self._of_component = {
            (fold(base_component(entry.component)), _is_urine_or_stool(entry)): entry.category
            for entry in reversed(entries)
            if entry.category
        }

    def categorise(self, query: Query, match: Match) -> tuple[str, float]:
        """The category of a test and its confidence, 0 to 1."""
        if match.status is not Status.NO_MATCH and match.candidates:
            best = match.candidates[0]
            category, sureness = self.of_entry(best.entry)
            if category != OTHERS:
                return category, max(sureness * best.score, self._shared(match, category))
        if query.parsed.is_dose:
            return OTHERS, _BY_KEYWORD
        return self._of_words(query)

    def of_entry(self, entry: Entry) -> tuple[str, float]:
        """The category of a code, and how sure it is."""
        if entry.category:
            return entry.category, 1.0
        learnt = self._of_component.get((fold(base_component(entry.component)), _is_urine_or_stool(entry)))
        if learnt:
            return learnt, 0.95
        if _is_urine_or_stool(entry) and not entry.loinc_class.startswith(("MICRO", "DRUG")):
            return URINE_STOOL, _BY_SPECIMEN
        return _by_words(fold(entry.component), entry.loinc_class)

    def _shared(self, match: Match, category: str) -> float:
        """Codes that the match wavers between may all be of one category, which is then sure."""
        alike = [candidate for candidate in match.candidates if self.of_entry(candidate.entry)[0] == category]
        return min(1.0, sum(candidate.score for candidate in alike))

    @staticmethod
    def _of_words(query: Query) -> tuple[str, float]:
        if query.parsed.specimens & {"urine", "stool"}:
            return URINE_STOOL, _BY_SPECIMEN
        for text in query.readings:
            category, sureness = _by_words(text, "")
            if category != OTHERS:
                return category, sureness
        return OTHERS, _OTHERS_WITHOUT_SIGN


def _by_words(text: str, loinc_class: str) -> tuple[str, float]:
    for category, pattern in _PATTERNS:
        if pattern.search(text):
            return category, _BY_KEYWORD
    if loinc_class in _CLASSES:
        return _CLASSES[loinc_class], _BY_CLASS
    return OTHERS, _OTHERS_WITHOUT_SIGN


def _is_urine_or_stool(entry: Entry) -> bool:
    return entry.system.lower() in _URINE_SYSTEMS
