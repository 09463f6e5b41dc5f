"""Lab tests and what they are: frozen values, never protobuf messages."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, kw_only=True)
class LabTest:
    """One test as a laboratory printed it. Only the name is needed."""

    id: str
    name: str
    value: str = ""
    unit: str = ""
    specimen: str = ""
    reference_range: str = ""


@dataclass(frozen=True, kw_only=True)
class Alias:
    """What a person said that a printed name means."""

    name: str
    # LOINC code.
    code: str
    # Unit and specimen for which it does, as printed; empty for any.
    unit: str = ""
    specimen: str = ""


class MatchStatus(StrEnum):
    """Whether a LOINC code was found."""

    MATCHED = "matched"
    NO_MATCH = "no_match"
    NEEDS_REVIEW = "needs_review"


@dataclass(frozen=True, kw_only=True)
class LoincCandidate:
    """One entry of the catalogue that may be meant."""

    code: str
    long_common_name: str
    component: str
    system: str
    # 0 to 1.
    score: float
    # What spoke for it: alias, lexical, embedding, unit, specimen.
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LabReading:
    """What a printed value says."""

    # Absent for words.
    number: float | None
    # In UCUM's spelling; as printed where that is not known.
    unit: str
    # The number in the unit of the other system, of a believed match whose molar mass is known.
    converted_number: float | None
    converted_unit: str
    # low, normal, high or abnormal; empty where nothing tells.
    flag: str


@dataclass(frozen=True, kw_only=True)
class LabClassification:
    """What one test is."""

    # As asked.
    id: str
    category: str
    # 0 to 1.
    category_confidence: float
    status: MatchStatus
    # Best first; also given without a match.
    candidates: tuple[LoincCandidate, ...]
    explanation: str
    # None without a value.
    reading: LabReading | None = None


@dataclass(frozen=True, kw_only=True)
class LabClassifications:
    """What a list of tests is, in its order."""

    tests: tuple[LabClassification, ...]
    # As name:version.
    model: str
    catalogue: str
