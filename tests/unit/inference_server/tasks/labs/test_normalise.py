"""A printed test is taken apart: analyte, specimen, timing, method, property, scale."""

from __future__ import annotations

import pytest

from inference_server.tasks.labs.parsing.normalise import Abbreviations, PrintedTest, fold, parse


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Haemoglobin", "HEMOGLOBIN"),
        ("T.S.H.", "tsh"),
        ("Leucocytes", "leukocyte"),
        ("β-hCG", "beta hcg"),
        ("Oestradiol", "estradiol"),
        ("Anti-HBs antibodies", "ab hbs ab"),
        ("Tumour marker", "tumor marker"),
        ("Lymphocytes %", "lymphocyte percent"),
    ],
)
def test_spellings_fold_to_one(one: str, other: str) -> None:
    assert fold(other) == fold(one)


@pytest.mark.parametrize(
    ("name", "analyte", "axis", "said"),
    [
        ("Gula Darah Puasa", "gula", "timings", {"fasting"}),
        ("Gula darah 2 jam PP", "gula", "timings", {"post meal"}),
        ("Gula Darah Sewaktu", "gula", "timings", {"random"}),
        ("Protein, 24 hour urine", "protein", "timings", {"24 hour"}),
        ("Protein urin", "protein", "specimens", {"urine"}),
        ("S. Calcium", "calcium", "specimens", {"serum"}),
        ("Kreatinin darah", "kreatinin", "specimens", {"blood"}),
        ("Hemoglobin in whole blood", "hemoglobin", "specimens", {"whole blood"}),
        ("CRP (high sensitivity)", "crp", "methods", {"high sensitivity"}),
        ("Dengue IgG rapid test", "dengue igg", "methods", {"ia.rapid"}),
        ("Hitung jumlah leukosit", "leukosit", "hinted", {"NCnc", "Naric", "Num", "NRat"}),
    ],
)
def test_words_around_the_analyte_are_understood(name: str, analyte: str, axis: str, said: set[str]) -> None:
    parsed = parse(PrintedTest(name=name))
    assert (analyte, frozenset(said)) == (parsed.analyte, getattr(parsed, axis))


@pytest.mark.parametrize(
    ("value", "unit", "scale"),
    [
        ("5.6", "mmol/L", "Qn"),
        ("<0,5", "", "Qn"),
        ("14,5", "g/dL", "Qn"),
        ("Positif", "", "Ord"),
        ("Non Reaktif", "", "Ord"),
        ("++", "", "Ord"),
        ("E. coli", "", "Nom"),
        ("", "mg/dL", "Qn"),
        ("", "", ""),
    ],
)
def test_the_value_tells_the_scale(value: str, unit: str, scale: str) -> None:
    assert scale == parse(PrintedTest(name="x", value=value, unit=unit)).scale


def test_a_titre_is_a_titre() -> None:
    assert frozenset({"Titr"}) == parse(PrintedTest(name="Widal O", value="1:160")).properties


def test_the_specimen_field_overrules_the_name() -> None:
    assert frozenset({"cerebrospinal fluid"}) == parse(PrintedTest(name="Glucose serum", specimen="CSF")).specimens


@pytest.mark.parametrize(
    ("name", "dose"),
    [("paracetamol 500 mg", True), ("Amoxicillin tablet", True), ("Albumin mg/dL", False), ("Vitamin B12", False)],
)
def test_a_dose_of_a_medicine_is_recognised(name: str, dose: bool) -> None:
    assert dose == parse(PrintedTest(name=name)).is_dose


def test_a_name_made_of_specimen_words_alone_keeps_them() -> None:
    assert "urine" == parse(PrintedTest(name="Urine")).analyte


@pytest.mark.parametrize("name", ["", "   ", "!!!", "日本語", "\x00\x01", "(" * 50, "a" * 300])
def test_anything_can_be_parsed(name: str) -> None:
    assert fold(name) == parse(PrintedTest(name=name)).text


def test_abbreviations_are_written_out_in_each_of_their_meanings() -> None:
    known = Abbreviations([("Hb", "hemoglobin"), ("PT", "prothrombin time"), ("PT", "protein total"), ("CK MB", "creatine kinase mb")])
    assert ["prothrombin time", "protein total"] == known.expand("pt")
    assert ["creatine kinase mb activity"] == known.expand("ck mb activity")
    assert [] == known.expand("glucose")
