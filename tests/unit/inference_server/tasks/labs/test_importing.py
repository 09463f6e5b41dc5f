"""A user's own Loinc.csv is read, checked and joined with the built-in names."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from inference_server.errors import ConfigurationError, InvalidCatalogue
from inference_server.tasks.labs.catalogue.axes import from_long_name
from inference_server.tasks.labs.catalogue.catalogue import Catalogue, load_catalogue
from inference_server.tasks.labs.catalogue.entries import COLUMNS, Entry, read_entries
from inference_server.tasks.labs.catalogue.importing import ImportReport, import_catalogue

OFFICIAL = (
    "LOINC_NUM", "COMPONENT", "PROPERTY", "TIME_ASPCT", "SYSTEM", "SCALE_TYP", "METHOD_TYP", "CLASS", "STATUS", "CLASSTYPE", "SHORTNAME",
    "LONG_COMMON_NAME", "RELATEDNAMES2", "EXAMPLE_UCUM_UNITS", "COMMON_TEST_RANK",
)  # fmt: skip
ROWS = (
    ("718-7", "Hemoglobin", "MCnc", "Pt", "Bld", "Qn", "", "HEM/BC", "ACTIVE", "1", "Hgb Bld-mCnc",
     "Hemoglobin [Mass/volume] in Blood", "Hb;Hgb", "g/dL", "3"),
    ("99001-8", "Zorblin", "SCnc", "Pt", "Ser/Plas", "Qn", "", "CHEM", "ACTIVE", "1", "Zorblin SerPl-sCnc",
     "Zorblin [Moles/volume] in Serum or Plasma", "Zbl", "umol/L", "0"),
    ("99002-6", "Old thing", "MCnc", "Pt", "Ser", "Qn", "", "CHEM", "DEPRECATED", "1", "", "Old thing [Mass/volume] in Serum", "", "", "0"),
    ("4548-4", "Hemoglobin A1c", "MFr", "Pt", "Bld", "Qn", "", "CHEM", "DISCOURAGED", "1", "", "Hemoglobin A1c in Blood", "", "%", "0"),
    ("99003-4", "Heart rate", "NRat", "Pt", "XXX", "Qn", "", "HRTRATE.ATOM", "ACTIVE", "2", "", "Heart rate", "", "/min", "0"),
    ("99004-2", "", "", "", "", "", "", "", "ACTIVE", "1", "", "Color of Urine", "", "", "0"),
    ("", "Nameless", "", "", "", "", "", "", "ACTIVE", "1", "", "", "", "", "0"),
)  # fmt: skip
BUILT_IN = (
    ("718-7", "Hemoglobin", "MCnc", "Pt", "Bld", "Qn", "", "Hemoglobin [Mass/volume] in Blood", "Hgb Bld-mCnc",
     "Complete Blood Count (CBC)", "g/dL", "Hemoglobin|Hb", "Kadar Hb", "1"),
    ("4548-4", "Hemoglobin A1c/Hemoglobin.total", "MFr", "Pt", "Bld", "Qn", "", "Hemoglobin A1c/Hemoglobin.total in Blood", "",
     "Diabetes Panel", "%", "HbA1c", "", "9"),
    ("2345-7", "Glucose", "MCnc", "Pt", "Ser/Plas", "Qn", "", "Glucose [Mass/volume] in Serum or Plasma", "", "Diabetes Panel", "mg/dL",
     "Glucose", "Gula darah", "2"),
)  # fmt: skip


def write_table(path: Path, rows: tuple[tuple[str, ...], ...] = ROWS, columns: tuple[str, ...] = OFFICIAL) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


def write_built_in(folder: Path) -> Path:
    folder.mkdir()
    write_table(folder / "catalogue.csv", BUILT_IN, COLUMNS)
    write_table(folder / "abbreviations.csv", (("GDS", "gula darah sewaktu"),), ("short", "long"))
    return folder


async def test_a_deprecated_code_is_taken_for_what_stands_for_it(tmp_path: Path) -> None:
    """Of MapTo.csv beside the table; a code that several may stand for is left to a person."""
    rows = (("99002-6", "88888-8"), ("88888-8", "718-7"), ("77777-7", "718-7"), ("77777-7", "99001-8"))
    write_table(tmp_path / "MapTo.csv", rows, ("LOINC", "MAP_TO"))
    await import_catalogue(write_table(tmp_path / "Loinc.csv"), tmp_path / "models", lambda done, total: None)
    catalogue = load_catalogue(tmp_path / "models", built_in=write_built_in(tmp_path / "data"))
    assert ["718-7", "718-7", "", ""] == [catalogue.current(code) for code in ("718-7", "99002-6", "77777-7", "12345-1")]


@pytest.fixture
async def imported(tmp_path: Path) -> tuple[ImportReport, Catalogue]:
    report = await import_catalogue(write_table(tmp_path / "Loinc.csv"), tmp_path / "models", lambda done, total: None)
    return report, load_catalogue(tmp_path / "models", built_in=write_built_in(tmp_path / "data"))


async def test_active_laboratory_codes_are_kept_and_the_rest_is_counted(imported: tuple[ImportReport, Catalogue]) -> None:
    report, _ = imported
    assert (3, 2, 1, 1, 0) == (report.imported, report.withdrawn, report.not_laboratory, report.unnamed, report.embedded)


async def test_built_in_codes_stay_unless_the_table_withdrew_them(imported: tuple[ImportReport, Catalogue]) -> None:
    _, catalogue = imported
    assert {"718-7", "99001-8", "99004-2", "2345-7"} == set(catalogue.by_code)
    assert catalogue.version.startswith("loinc:")


async def test_an_imported_code_keeps_its_built_in_category_names_and_rank(imported: tuple[ImportReport, Catalogue]) -> None:
    _, catalogue = imported
    entry = catalogue.entries[catalogue.by_code["718-7"]]
    assert ("Complete Blood Count (CBC)", ("Hemoglobin", "Hb", "Hgb"), ("Kadar Hb",), 1) == (
        entry.category, entry.english_names, entry.indonesian_names, entry.rank
    )  # fmt: skip


async def test_axes_are_read_from_the_long_name_where_the_table_has_none(imported: tuple[ImportReport, Catalogue]) -> None:
    _, catalogue = imported
    entry = catalogue.entries[catalogue.by_code["99004-2"]]
    assert ("Color", "Urine") == (entry.component, entry.system)


async def test_progress_grows_to_its_total(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    await import_catalogue(write_table(tmp_path / "Loinc.csv"), tmp_path / "models", lambda done, total: seen.append((done, total)))
    assert (7, 7) == seen[-1]
    assert sorted(seen) == seen


async def test_importing_again_replaces_what_was_imported(tmp_path: Path) -> None:
    await import_catalogue(write_table(tmp_path / "Loinc.csv"), tmp_path / "models", lambda done, total: None)
    await import_catalogue(write_table(tmp_path / "Loinc.csv", ROWS[:1]), tmp_path / "models", lambda done, total: None)
    assert ["718-7"] == [entry.code for entry in read_entries(tmp_path / "models" / "_catalogue" / "loinc.csv")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "lacks the column"),
        (b"a,b\n1,2\n", "LOINC_NUM"),
        (b"\xff\xfe\x00", "UTF-8"),
        (",".join(OFFICIAL).encode() + b"\n", "no active"),
    ],
)
async def test_a_file_that_is_no_such_table_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "Loinc.csv").write_bytes(content)
    with pytest.raises(InvalidCatalogue, match=said):
        await import_catalogue(tmp_path / "Loinc.csv", tmp_path / "models", lambda done, total: None)


async def test_an_absent_table_and_a_folder_that_is_none_are_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidCatalogue, match="does not exist"):
        await import_catalogue(tmp_path / "none.csv", tmp_path, lambda done, total: None)
    (tmp_path / "models").write_text("a file")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        await import_catalogue(write_table(tmp_path / "Loinc.csv"), tmp_path / "models", lambda done, total: None)


def test_a_built_in_row_with_a_bad_code_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "catalogue.csv", (("abc", *[""] * 13),), COLUMNS)
    with pytest.raises(InvalidCatalogue, match="'abc' is not a LOINC code"):
        read_entries(tmp_path / "catalogue.csv")


@pytest.mark.parametrize(
    ("name", "axes"),
    [
        ("Glucose [Mass/volume] in Serum or Plasma", ("Glucose", "MCnc", "Pt", "Ser/Plas", "Qn", "")),
        ("Protein [Mass/time] in 24 hour Urine", ("Protein", "MRat", "24H", "Urine", "Qn", "")),
        ("Ketones [Presence] in Urine by Test strip", ("Ketones", "PrThr", "Pt", "Urine", "Ord", "Test strip")),
        ("Cholesterol in LDL [Mass/volume] in Serum or Plasma", ("Cholesterol in LDL", "MCnc", "Pt", "Ser/Plas", "Qn", "")),
    ],
)
def test_a_long_common_name_tells_its_axes(name: str, axes: tuple[str, ...]) -> None:
    found = from_long_name(name)
    assert axes == tuple(found[axis] for axis in ("component", "property", "time_aspect", "system", "scale", "method"))


def test_the_built_in_catalogue_loads_and_knows_its_categories(tmp_path: Path) -> None:
    from inference_server.tasks.labs.categorise import CATEGORIES

    catalogue = load_catalogue(tmp_path)
    assert catalogue.version.startswith("builtin:")
    assert set() == {entry.category for entry in catalogue.entries} - set(CATEGORIES)
    assert len(catalogue.entries) >= 400
    assert isinstance(catalogue.entries[0], Entry)
