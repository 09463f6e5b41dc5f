"""The lab task with its real encoder and the built-in catalogue."""

from __future__ import annotations

import asyncio
import csv
import time
from pathlib import Path

import numpy as np
import pytest

from inference_server.errors import InvalidCatalogue, InvalidInput, NotFound, Unavailable
from inference_server.scheduler.port import Caller, InferenceRequest, InferenceResponse
from inference_server.tasks.labs.catalogue.importing import import_catalogue
from inference_server.tasks.labs.categorise import CATEGORIES
from inference_server.tasks.labs.classifier import Classified, LabClassifier
from inference_server.tasks.labs.limits import Limits
from inference_server.tasks.labs.matching.aliases import Alias
from inference_server.tasks.labs.matching.match import Status
from inference_server.tasks.labs.measures import quantities, ucum
from inference_server.tasks.labs.parsing.normalise import PrintedTest
from tests.support.models.direct_inference import DirectInference, RecordedInference

CALLER = Caller(client="test")
COUNT, LIVER, KIDNEY = "Complete Blood Count (CBC)", "Liver Function Tests (LFT)", "Kidney Function Tests (KFT)"
DIABETES, LIPIDS, THYROID, SALTS = "Diabetes Panel", "Lipid Profile", "Thyroid Profile", "Electrolyte Panel"
INFECTION, URINE = "Infection Markers", "Urine & Stool Tests"
# Name, unit, value, code, category: what Indonesian and English reports print most.
PRINTED = (
    ("Hemoglobin", "g/dL", "13.2", "718-7", COUNT),
    ("Hb", "g/dL", "13,2", "718-7", COUNT),
    ("Leukosit", "ribu/µL", "7.8", "6690-2", COUNT),
    ("White blood cell count", "10^3/uL", "7.8", "6690-2", COUNT),
    ("Jumlah Eritrosit", "juta/uL", "4.9", "789-8", COUNT),
    ("Trombosit", "10^3/µL", "250", "777-3", COUNT),
    ("Hematokrit", "%", "41", "4544-3", COUNT),
    ("MCV", "fL", "88", "787-2", COUNT),
    ("Limfosit", "%", "30", "736-9", COUNT),
    ("Gula Darah Puasa", "mg/dL", "105", "1558-6", DIABETES),
    ("GDP", "mg/dL", "105", "1558-6", DIABETES),
    ("Gula darah sewaktu", "mg/dL", "140", "2345-7", DIABETES),
    ("GDS", "mg/dL", "140", "2345-7", DIABETES),
    ("Glucose", "mg/dL", "99", "2345-7", DIABETES),
    ("Glucose", "mmol/L", "5.5", "14749-6", DIABETES),
    ("HbA1c", "%", "5.6", "4548-4", DIABETES),
    ("Kolesterol Total", "mg/dL", "190", "2093-3", LIPIDS),
    ("Kolesterol LDL", "mg/dL", "110", "2089-1", LIPIDS),
    ("HDL Cholesterol", "mg/dL", "50", "2085-9", LIPIDS),
    ("Trigliserida", "mg/dL", "150", "2571-8", LIPIDS),
    ("SGOT (AST)", "U/L", "25", "1920-8", LIVER),
    ("SGPT", "U/L", "30", "1742-6", LIVER),
    ("Bilirubin Total", "mg/dL", "0.8", "1975-2", LIVER),
    ("Ureum", "mg/dL", "30", "3091-6", KIDNEY),
    ("Kreatinin", "mg/dL", "0.9", "2160-0", KIDNEY),
    ("Creatinine", "µmol/L", "80", "14682-9", KIDNEY),
    ("Asam Urat", "mg/dL", "5.5", "3084-1", KIDNEY),
    ("Natrium", "mmol/L", "140", "2951-2", SALTS),
    ("Kalium", "mEq/L", "4.1", "2823-3", SALTS),
    ("TSH", "µIU/mL", "2.1", "3016-3", THYROID),
    ("FT4", "ng/dL", "1.2", "3024-7", THYROID),
    ("Free T4", "pmol/L", "15", "14920-3", THYROID),
    ("HBsAg", "", "Non Reaktif", "5195-3", INFECTION),
    ("Leukosit urin", "/LPB", "2-4", "5821-4", URINE),
    ("Haemoglobn", "g/dL", "13", "718-7", COUNT),
    ("Laju Endap Darah", "mm/jam", "12", "30341-2", COUNT),
)
NO_TESTS = ("asdf qwer", "Invoice total", "paracetamol 500 mg", "Tanggal lahir", "Nama pasien", "Total amount due", "Doctor signature")


async def classify(labs: LabClassifier, *names: str) -> Classified:
    return await labs.classify([PrintedTest(name=name) for name in names], caller=CALLER)


async def test_names_that_reports_print_get_their_code_and_category(labs: LabClassifier) -> None:
    tests = [PrintedTest(name=name, unit=unit, value=value) for name, unit, value, _, _ in PRINTED]
    found = (await labs.classify(tests, caller=CALLER)).tests
    expected = {(name, unit): (code, category) for name, unit, _, code, category in PRINTED}
    given = {(test.name, test.unit): (each.match.candidates[0].entry.code, each.category) for test, each in zip(tests, found, strict=True)}
    assert expected == given
    assert {Status.MATCHED} == {each.match.status for each in found}


async def test_what_is_no_test_is_not_matched_and_is_of_no_category(labs: LabClassifier) -> None:
    found = (await classify(labs, *NO_TESTS)).tests
    assert {(Status.NO_MATCH, "Others")} == {(each.match.status, each.category) for each in found}


async def test_every_answer_tells_model_catalogue_five_candidates_and_a_known_category(labs: LabClassifier) -> None:
    found = await classify(labs, "Hemoglobin", "asdf qwer")
    assert "all_minilm_l6_v2:1" == found.model
    assert found.catalogue.startswith("builtin:")
    assert [5, 5] == [len(each.match.candidates) for each in found.tests]
    assert {each.category for each in found.tests} <= set(CATEGORIES)


async def test_the_encoder_agrees_with_published_similarities(labs: LabClassifier) -> None:
    """As sentence-transformers documents all-MiniLM-L6-v2: 0.7553 between these two."""
    rows, model = await labs.embed(["A man is eating food.", "A man is eating a piece of bread.", "x" * 5000], caller=CALLER)
    assert ("all_minilm_l6_v2:1", (3, 384)) == (model, rows.shape)
    assert pytest.approx(0.7553, abs=2e-4) == float(rows[0] @ rows[1])
    np.testing.assert_allclose(np.ones(3), np.linalg.norm(rows, axis=1), atol=1e-5)


async def test_embeddings_do_not_depend_on_what_else_is_asked(labs: LabClassifier) -> None:
    texts = ["glucose", "a much longer text about potassium in serum or plasma " * 3, "urine"]
    together, _ = await labs.embed(texts, caller=CALLER)
    alone = np.concatenate([(await labs.embed([text], caller=CALLER))[0] for text in texts])
    np.testing.assert_allclose(alone, together, atol=1e-5)


async def test_a_search_finds_codes(labs: LabClassifier) -> None:
    hits = await labs.search("thyroid stimulating hormone", limit=3, caller=CALLER)
    assert (3, "3016-3") == (len(hits), hits[0].entry.code)


async def test_reviewed_names_survive_a_restart(models: Path, labs: LabClassifier) -> None:
    assert Status.NO_MATCH is (await classify(labs, "Tes manis ajaib")).tests[0].match.status
    assert (1, 0) == await labs.upsert_aliases([Alias(name="Tes manis ajaib", code="2345-7")])
    for classifier in (labs, LabClassifier(DirectInference(models), models)):
        match = (await classify(classifier, "TES MANIS AJAIB")).tests[0].match
        assert (Status.MATCHED, "2345-7", ("alias",)) == (match.status, match.candidates[0].entry.code, match.candidates[0].reasons)


async def test_an_alias_of_an_unknown_code_is_refused_and_none_of_its_request_is_kept(labs: LabClassifier) -> None:
    with pytest.raises(NotFound, match="1-1"):
        await labs.upsert_aliases([Alias(name="Gula ajaib", code="2345-7"), Alias(name="Apa ini", code="1-1")])
    assert ("alias",) != (await classify(labs, "Gula ajaib")).tests[0].match.candidates[0].reasons


@pytest.mark.parametrize(
    ("tests", "said"),
    [
        ([], "^the request has no tests; expected 1 to 3[.]$"),
        ([PrintedTest(name="Hb")] * 4, "4 tests"),
        ([PrintedTest(name="Hb"), PrintedTest(name="  ")], "test 1 has no name"),
        ([PrintedTest(name="H" * 41)], "41 characters"),
        ([PrintedTest(name="Hb", value="1" * 41)], "41 characters"),
    ],
)
async def test_requests_beyond_the_limits_are_refused(models: Path, tests: list[PrintedTest], said: str) -> None:
    labs = LabClassifier(DirectInference(models), models, limits=Limits(most_items=3, most_characters=40))
    with pytest.raises(InvalidInput, match=said):
        await labs.classify(tests, caller=CALLER)


async def test_too_many_candidates_a_too_long_text_and_an_unknown_model_are_refused(labs: LabClassifier) -> None:
    with pytest.raises(InvalidInput, match="101 candidates"):
        await labs.search("glucose", limit=101, caller=CALLER)
    with pytest.raises(InvalidInput, match="20001 characters"):
        await labs.embed(["x" * 20_001], caller=CALLER)
    with pytest.raises(NotFound):
        await labs.embed(["glucose"], model="none", caller=CALLER)


@pytest.mark.parametrize(("query", "said"), [(" ", "the query is empty"), ("H" * 301, "the query has 301 characters; at most 300")])
async def test_a_search_for_nothing_or_for_far_too_much_is_told_as_a_search(labs: LabClassifier, query: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        await labs.search(query, caller=CALLER)


async def test_a_damaged_catalogue_is_no_fault_of_the_caller_and_its_operator_is_told_how_to_mend_it(models: Path, tmp_path: Path) -> None:
    (tmp_path / "_catalogue").mkdir()
    (tmp_path / "_catalogue" / "loinc.csv").write_text("foo,bar\n1,2\n")
    labs = LabClassifier(DirectInference(models), tmp_path)
    with pytest.raises(InvalidCatalogue, match=r"damaged: .*lacks the column.* Import Loinc.csv again, or delete .*loinc.csv"):
        await labs.start()
    with pytest.raises(Unavailable, match="lacks its catalogue of lab tests or the model") as caught:
        await labs.classify([PrintedTest(name="Hb")], caller=CALLER)
    assert str(tmp_path) not in str(caught.value)


async def test_a_missing_encoder_is_no_fault_of_the_caller(tmp_path: Path) -> None:
    labs = LabClassifier(DirectInference(tmp_path), tmp_path)
    with pytest.raises(NotFound, match="no model all_minilm_l6_v2"):
        await labs.start()
    with pytest.raises(Unavailable, match="lacks its catalogue of lab tests or the model"):
        await labs.classify([PrintedTest(name="Hb")], caller=CALLER)


async def test_an_imported_table_is_found_and_its_names_are_embedded_at_once(models: Path) -> None:
    table = models.parent / "Loinc.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["LOINC_NUM", "COMPONENT", "PROPERTY", "TIME_ASPCT", "SYSTEM", "SCALE_TYP", "METHOD_TYP", "CLASS", "LONG_COMMON_NAME"]
        )
        writer.writerow(["99001-8", "Zorblin", "MCnc", "Pt", "Ser/Plas", "Qn", "", "CHEM", "Zorblin [Mass/volume] in Serum or Plasma"])
    seen: list[tuple[int, int]] = []
    inference = CountingInference(models)
    report = await import_catalogue(table, models, lambda done, total: seen.append((done, total)), inference=inference)
    assert (1, 0) == (report.imported, report.withdrawn)
    assert report.embedded == seen[-1][0] - 1 == seen[-1][1] - 1
    # The built-in names were embedded before; only the new one is.
    assert 1 == inference.requests
    labs = LabClassifier(inference, models)
    await labs.start()
    assert 1 == inference.requests
    found = await classify(labs, "Zorblin", "Hemoglobin")
    assert ["99001-8", "718-7"] == [each.match.candidates[0].entry.code for each in found.tests]
    assert report.version == found.catalogue


async def test_without_its_encoder_the_task_is_unavailable_and_later_recovers(models: Path) -> None:
    inference = LateInference(models)
    labs = LabClassifier(inference, models)
    with pytest.raises(Unavailable):
        await labs.start()
    inference.loaded = True
    assert "718-7" == (await classify(labs, "Hemoglobin")).tests[0].match.candidates[0].entry.code


async def test_the_event_loop_stays_free_while_tests_are_matched(labs: LabClassifier) -> None:
    await labs.start()
    own, all_work = time.thread_time(), time.process_time()
    await classify(labs, *(f"{name} {number}" for number, (name, *_) in enumerate(PRINTED * 3)))
    own, all_work = time.thread_time() - own, time.process_time() - all_work
    # Its own work is a small part: the most is done by other threads.
    assert own < all_work / 2


class CountingInference(DirectInference):
    """Counts the requests."""

    requests = 0

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        self.requests += 1
        return await super().infer(request)


class LateInference(DirectInference):
    """A model that is still loading."""

    loaded = False

    def facts(self, model: str, version: str = "") -> object:  # type: ignore[override]
        if not self.loaded:
            raise Unavailable(f"model {model} is still loading")
        return super().facts(model, version)


@pytest.mark.parametrize("blank", ["", "  \n\t"])
async def test_a_blank_text_is_not_embedded_and_told_by_its_number(labs: LabClassifier, blank: str) -> None:
    with pytest.raises(InvalidInput, match=r"text 1 \(counted from 0\) is blank"):
        await labs.embed(["glucose", blank], caller=CALLER)


async def test_why_labs_are_absent_is_told_until_they_answer(models: Path) -> None:
    inference = LateInference(models)
    labs = LabClassifier(inference, models)
    told = [labs.absence]
    with pytest.raises(Unavailable):
        await labs.start()
    told.append(labs.absence)
    inference.loaded = True
    await labs.start()
    assert ["the catalogue of lab tests is loading", "model all_minilm_l6_v2 is still loading", ""] == [*told, labs.absence]


async def test_no_request_waits_for_what_uncommon_units_are_read_with(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (ucum._registry, ucum._quantity, quantities.ucum):
        each.cache_clear()
    labs = LabClassifier(DirectInference(models), models)
    await labs.start()
    # Whoever would load it now does without, and tells the unit as printed.
    monkeypatch.setattr("ucumvert.PintUcumRegistry", None)
    (found,) = (await labs.classify([PrintedTest(name="Alkaline phosphatase", unit="µkat/L", value="1.4")], caller=CALLER)).tests
    assert found.result is not None
    assert "ukat/L" == found.result.reading.unit


async def test_a_name_of_the_catalogue_is_not_encoded_again_and_another_only_once(models: Path) -> None:
    inference = RecordedInference(models)
    labs = LabClassifier(inference, models)
    await labs.start()
    inference.requests.clear()
    await classify(labs, "Hemoglobin", "Creatinine, Urine")
    assert [] == inference.requests
    first = await classify(labs, "Haemoglobn", "Hemoglobin", "haemoglobn")
    again = await classify(labs, "Haemoglobn")
    assert [1] == [len(request.inputs["input_ids"]) for request in inference.requests]
    assert ["718-7"] * 4 == [test.match.candidates[0].entry.code for test in (*first.tests, *again.tests)]


async def test_names_are_encoded_anew_once_another_encoder_serves(models: Path) -> None:
    inference = RecordedInference(models)
    labs = LabClassifier(inference, models)
    await labs.start()
    inference.sha256 = "another"
    inference.requests.clear()
    await classify(labs, "Hemoglobin")
    assert 1 == len(inference.requests)


async def test_a_small_request_does_not_wait_for_a_large_one(labs: LabClassifier) -> None:
    await labs.start()
    orders = []
    # Again where the machine held the small one up.
    while [1, 600] not in orders and len(orders) < 3:
        done: list[int] = []

        async def ask(count: int, done: list[int] = done, name: str = f"Hemoglobin {len(orders)}") -> None:
            await classify(labs, *(f"{name} {number}" for number in range(count)))
            done.append(count)

        large = asyncio.create_task(ask(600))
        await asyncio.sleep(0.1)
        await asyncio.gather(large, ask(1))
        orders.append(done)
    assert [1, 600] == orders[-1]
