"""Reviewed names are remembered, for good."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference_server.errors import InvalidInput
from inference_server.tasks.labs.matching.aliases import Alias, AliasMemory


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "_catalogue" / "aliases.jsonl"


def code_of(memory: AliasMemory, name: str, unit: str = "") -> str | None:
    found = memory.find(name, unit)
    return found.code if found else None


def test_names_are_counted_as_new_or_changed(file: Path) -> None:
    memory = AliasMemory(file)
    assert (2, 0) == memory.upsert([Alias(name="Gula puasa", code="1558-6"), Alias(name="Hb", code="718-7")])
    assert (0, 1) == memory.upsert([Alias(name="GULA PUASA", code="2345-7"), Alias(name="Hb", code="718-7")])
    assert 2 == len(memory)


def test_a_restart_forgets_nothing(file: Path) -> None:
    AliasMemory(file).upsert([Alias(name="Gula puasa é", code="1558-6", unit="mg/dL")])
    assert "1558-6" == code_of(AliasMemory(file), " gula  PUASA é", "mg / dl")


def test_an_alias_of_a_unit_is_for_that_unit_and_wins_over_one_of_any(file: Path) -> None:
    memory = AliasMemory(file)
    memory.upsert([Alias(name="Glukosa", code="14749-6", unit="mmol/L"), Alias(name="Glukosa", code="2345-7")])
    assert ["14749-6", "2345-7", "2345-7"] == [code_of(memory, "glukosa", unit) for unit in ("mmol/L", "mg/dL", "")]
    memory.upsert([Alias(name="Kalsium ion", code="1994-3", unit="mmol/L")])
    assert None is code_of(memory, "Kalsium ion", "mg/dL")


def test_the_catalogue_that_a_name_was_reviewed_with_is_kept(file: Path) -> None:
    AliasMemory(file).upsert([Alias(name="Hb", code="718-7", catalogue="loinc:0123")])
    assert ["loinc:0123"] == [alias.catalogue for alias in AliasMemory(file).all()]


def test_a_bad_alias_leaves_all_as_it_was(file: Path) -> None:
    memory = AliasMemory(file)
    with pytest.raises(InvalidInput, match="no letters"):
        memory.upsert([Alias(name="Hb", code="718-7"), Alias(name="---", code="718-7")])
    assert (0, False) == (len(memory), file.exists())


def test_lines_that_cannot_be_read_are_left_out(file: Path) -> None:
    AliasMemory(file).upsert([Alias(name="Hb", code="718-7")])
    with file.open("a") as lines:
        lines.write('{"name": "torn\n')
    assert 1 == len(AliasMemory(file))


def test_a_line_that_cannot_be_read_is_still_in_the_file_after_the_next_name(file: Path) -> None:
    file.parent.mkdir()
    file.write_text('{"name": "Hb", "code": "718-7"}\n{"name": "Ureum", "code" 3091-6}\n')
    AliasMemory(file).upsert([Alias(name="Gula puasa", code="1558-6")])
    assert '{"name": "Ureum", "code" 3091-6}' in file.read_text().splitlines()
    assert 2 == len(AliasMemory(file))


def test_a_name_of_one_specimen_says_nothing_of_another(file: Path) -> None:
    memory = AliasMemory(file)
    memory.upsert([Alias(name="Glukosa", code="2345-7", specimen="Serum"), Alias(name="Glukosa", code="2350-7", specimen="Urine")])
    assert ("2345-7", "2350-7") == tuple(getattr(memory.find("glukosa", "mg/dL", each), "code", "") for each in ("serum", "URINE"))
    assert memory.find("Glukosa", "mg/dL") is None
    again = AliasMemory(file).find("Glukosa", "", "Urine")
    assert again is not None
    assert again.specimen == "Urine"


def test_what_is_known_already_is_not_written_again(file: Path) -> None:
    memory = AliasMemory(file)
    memory.upsert([Alias(name="Hb", code="718-7")])
    file.unlink()
    assert (0, 0) == memory.upsert([Alias(name="HB", code="718-7")])
    assert not file.exists()
