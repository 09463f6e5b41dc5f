"""The commands that measure, with the real models, on data made here."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from inference_server.__main__ import main
from inference_server.settings import PREFIX, Settings
from tests.support.documents.pdf import Text, pdf
from tests.support.documents.printed_pages import LAB_REPORT_TEXT, image_file, images_of, lab_report_pdf
from tests.support.models.built_models import built_models

Run = Callable[..., tuple[int, str, str]]
LABS, DOCUMENTS = "all_minilm_l6_v2", ("ppocrv6_small_det", "ppocrv6_small_rec")
TESTS = """name,specimen,unit,category,loinc
Hemoglobin,,g/dL,Complete Blood Count (CBC),718-7
Gula Darah Puasa,,mg/dL,Diabetes Panel,1558-6
Glucose,,mg/dL,Lipid Profile,14749-6
Kreatinin,serum,mg/dL,,9999999-9
"""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs the command line in an empty folder: exit status, and what it printed as its result and beside it."""
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)
    # One engine: to measure them all takes longer than the test.
    monkeypatch.setenv("INFERENCE_ENGINE", "onnxruntime:float32")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["inference-server", "evaluate", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return run


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A repository without reviewed names, where the built-in catalogue's names may be embedded already."""
    built, own = built_models(LABS, *DOCUMENTS), tmp_path / "models"
    (own / "_catalogue").mkdir(parents=True)
    for name in (LABS, *DOCUMENTS):
        (own / name).symlink_to(built / name)
    for vectors in (built / "_catalogue").glob("vectors-*.npz"):
        shutil.copy(vectors, own / "_catalogue")
    return own


def test_lab_tests_are_measured_as_json_and_as_a_table(run: Run, models: Path, tmp_path: Path) -> None:
    (tmp_path / "tests.csv").write_text(TESTS)
    status, told, beside = run("labs", "tests.csv", "--models", str(models), "--json")
    assert 0 == status, beside
    figures = json.loads(told)
    counts = {"tests": 4, "tests_without_entry": 1, "codes_without_entry": ["9999999-9"]}
    # Glucose in mg/dL is 2345-7: another property of the same component in the same specimen, and not what the table says. The unit
    # speaks against it so plainly that it is not among the first 20.
    shares = {"top_1": 0.5, "recall_20": 0.5, "component_and_specimen_top_1": 1, "category_accuracy": 2 / 3}
    assert counts | shares == {name: figures[name] for name in counts | shares}
    status, table, beside = run("labs", "tests.csv", "--models", str(models))
    lines = [line.strip("│ ").split("│") for line in table.splitlines() if "top-1" in line]
    assert (0, "0.500") == (status, lines[0][1].strip()), beside


def test_lab_tests_are_measured_with_the_names_of_other_parts_reviewed(run: Run, models: Path, tmp_path: Path) -> None:
    rows = [f"Zat ajaib {kind},,,Chemistry,{code}" for kind, code in (("alfa", "718-7"), ("beta", "2345-7")) for _ in range(12)]
    marks = ["", ".", " :", "*", "!", " -", "?", "+", "'", " /", " ;", " ~"]
    printed = [row.replace(",,,", f"{mark},,,", 1) for row, mark in zip(rows, marks * 2, strict=True)]
    (tmp_path / "tests.csv").write_text("\n".join(["name,specimen,unit,category,loinc", *printed]) + "\n")
    alone, reviewed = (json.loads(run("labs", "tests.csv", "--models", str(models), "--json", *more)[1]) for more in ((), ("--folds", "4")))
    assert (0, 1) == (alone["top_1"], reviewed["top_1"])
    # A heading of the laboratory is no category of ours.
    assert reviewed["category_accuracy"] is None


def test_documents_are_measured_by_page_and_in_all(run: Run, models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "report.pdf").write_bytes(lab_report_pdf())
    pages = [{"lines": [{"text": line} for line in text.split("\n")]} for text in LAB_REPORT_TEXT]
    (folder / "report.json").write_text(json.dumps({"pages": pages}))
    (folder / "second.png").write_bytes(image_file(images_of(lab_report_pdf())[1], "PNG"))
    (folder / "second.csv").write_text("0,0,1,0,1,1,0,1,SECOND PAGE\n0,2,1,2,1,3,0,3,KREATININ 0.9 MG/DL\n0,4,1,4,1,5,0,5,THIRD LINE\n")
    (folder / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "torn.txt").write_text("ab cd")
    (folder / "unknown.png").write_bytes(b"")
    status, told, beside = run("documents", "documents", "--models", str(models), "--json")
    assert (0, True) == (status, "Left out, for they have no text beside them: unknown.png" in beside), beside
    figures = json.loads(told)
    # "third line" is missing: 11 characters with its space, 2 words of 7.
    expected = [("report.pdf", 1, 0, 0), ("report.pdf", 2, 0, 0), ("second.png", 0, 11, 2), ("torn.png", 0, 5, 2)]
    assert expected == [(page["document"], page["page"], page["character_edits"], page["word_edits"]) for page in figures["pages"]]
    assert [False, False, False, True] == [bool(page["error"]) for page in figures["pages"]]
    characters = sum(len(text) for text in LAB_REPORT_TEXT) + len(LAB_REPORT_TEXT[1]) + 11 + 5
    assert pytest.approx(16 / characters) == figures["character_error_rate"]
    assert [0.0, 0.0, 2 / 7, 1.0] == [page["word_error_rate"] for page in figures["pages"]]
    # The other lines have 7 of the 9 words: 2 * 7 / (9 + 7).
    assert [1.0, 1.0, 0.875, 0.0] == [page["bag_f1"] for page in figures["pages"]]
    assert 0.71875 == figures["bag_f1"]


def test_documents_are_measured_by_words_or_lines_as_a_table(
    run: Run, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    pages = [image_file(image, "PNG") for image in images_of(lab_report_pdf())]
    (tmp_path / "words.png").write_bytes(pages[1])
    (tmp_path / "words.csv").write_text("x,y,word\n" + "".join(f"0,0,{word}\n" for word in LAB_REPORT_TEXT[1].split()))
    (tmp_path / "lines.png").write_bytes(pages[1])
    # A word more than the page has, of five letters and a space: 6 edits of 35 characters, 1 of 6 words.
    (tmp_path / "lines.json").write_text(json.dumps([{"text": line} for line in f"{LAB_REPORT_TEXT[1]} serum".split("\n")]))
    (tmp_path / "report.pdf").write_bytes(lab_report_pdf())
    (tmp_path / "report.json").write_text(
        json.dumps({"pages": [{"words": [{"text": word} for word in text.split()]} for text in LAB_REPORT_TEXT]})
    )
    status, table, beside = run("documents", ".", "--models", str(models))
    assert 0 == status, beside
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")][:5] for line in table.splitlines() if line.startswith("│")]
    characters = len(" ".join(LAB_REPORT_TEXT[1].split()))
    wrong, all_of_them = 6 / (characters + 6), 6 / (3 * characters + 6 + len(" ".join(LAB_REPORT_TEXT[0].split())))
    words = 3 * len(LAB_REPORT_TEXT[1].split()) + 1 + len(LAB_REPORT_TEXT[0].split())
    # Of letters or digits alone: "0.9" and "mg/dL" are two words each.
    bag = 2 * 7 / (8 + 7)
    assert [
        ["lines.png", "all", f"{wrong:.3f}", "0.167", f"{bag:.3f}"],
        ["report.pdf", "1", "0.000", "0.000", "1.000"],
        ["report.pdf", "2", "0.000", "0.000", "1.000"],
        ["words.png", "all", "0.000", "0.000", "1.000"],
        ["in all", "", f"{all_of_them:.3f}", f"{1 / words:.3f}", f"{(bag + 3) / 4:.3f}"],
    ] == rows


BAD = {
    "a table that is not there": (("labs", "absent.csv"), "absent.csv cannot be read (No such file"),
    "a folder that is not there": (("documents", "absent"), "absent is no folder; expected one with documents"),
    "models that are not there": (("labs", "tests.csv"), "lacks the model all_minilm_l6_v2. Make it there: inference-server models build"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_mistake_gets_a_clear_message_and_status_2(run: Run, tmp_path: Path, case: str) -> None:
    (tmp_path / "tests.csv").write_text(TESTS)
    (tmp_path / "models").mkdir()
    arguments, message = BAD[case]
    status, told, beside = run(*arguments, "--models", "models")
    assert (2, "", True) == (status, told, message in beside), beside


def test_pages_that_the_text_does_not_have_are_a_mistake(run: Run, models: Path, tmp_path: Path) -> None:
    (tmp_path / "report.pdf").write_bytes(lab_report_pdf())
    (tmp_path / "report.json").write_text(json.dumps({"pages": [{"lines": []}]}))
    status, _, beside = run("documents", ".", "--models", str(models))
    assert (2, True) == (status, "report.pdf has 2 page(s) and the text beside it 1" in beside), beside


def test_a_table_need_not_name_the_blank_pages_at_its_end(run: Run, models: Path, tmp_path: Path) -> None:
    (tmp_path / "report.pdf").write_bytes(pdf([[Text(text="Glukosa Puasa", x=60, y=60)], []], size=(300, 200)))
    (tmp_path / "report.csv").write_text("page,text\n1,Glukosa Puasa\n")
    status, told, beside = run("documents", ".", "--models", str(models), "--json")
    assert 0 == status, beside
    assert [(1, 0, 1.0), (2, 0, 1.0)] == [(page["page"], page["character_edits"], page["bag_f1"]) for page in json.loads(told)["pages"]]
