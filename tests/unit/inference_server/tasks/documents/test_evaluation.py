"""Figures of the documents task, against figures worked out by hand; and texts that are known, from files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inference_server.errors import InvalidInput
from inference_server.tasks.documents.evaluation import DocumentFigures, PageFigures, bag_f1, page_figures
from inference_server.tasks.documents.truth import known_documents


def compared(known: str, read: str) -> PageFigures:
    return page_figures(known, read, document="1.png", page=0)


def test_edits_are_counted_in_characters_and_in_words() -> None:
    # "hemoglobin 13.5 g/dl" has 20 characters; "0" for "o" and a space too many are 2 edits, and one word and one word more.
    page = compared("Hemoglobin 13.5 g/dL", "Hemogl0bin 13.5 g/ dL")
    assert (2, 20, 0.1, 3, 3) == (page.character_edits, page.characters, page.character_error_rate, page.word_edits, page.words)


def test_case_and_white_space_are_no_mistakes() -> None:
    page = compared("TOTAL  RM\n12.00\n", "Total RM 12.00")
    assert (0, 0, 1.0) == (page.character_error_rate, page.word_error_rate, page.bag_f1)


def test_the_order_counts_for_the_rates_and_not_for_the_bag() -> None:
    page = compared("one two", "two one")
    assert (1.0, 1.0) == (page.word_error_rate, page.bag_f1)


def test_the_bag_counts_each_word_as_often_as_it_is_there() -> None:
    # Known: a a b c; read: a b b d. Both have a and b once: 2 * 2 / (4 + 4).
    assert bag_f1("a a, b-c", "A b b d") == pytest.approx(0.5)


def test_punctuation_parts_the_words_of_the_bag() -> None:
    # Known: 13 5 g dl; read: 13 5 gdl.
    assert bag_f1("13.5 g/dL", "13.5 gdL") == pytest.approx(2 * 2 / 7)


@pytest.mark.parametrize(("known", "read", "expected"), [("", "", (0, 0, 1)), ("", "x y", (1, 1, 0)), ("x y", "", (1, 1, 0))])
def test_pages_without_text_have_figures_too(known: str, read: str, expected: tuple[float, ...]) -> None:
    page = compared(known, read)
    assert expected == (page.character_error_rate, page.word_error_rate, page.bag_f1)


def test_rates_in_all_weigh_each_page_by_its_text_and_the_bag_does_not() -> None:
    # Edits 1 of 2 and 0 of 8 characters, 1 of 1 and 0 of 2 words.
    figures = DocumentFigures(pages=(compared("ab", "ax"), compared("abc defg", "abc defg")))
    expected = (1 / 10, 1 / 4, 1 / 3, 1 / 2)
    assert expected == (figures.character_error_rate, figures.mean_character_error_rate, figures.word_error_rate, figures.bag_f1)


TEXTS = {
    "boxes with commas and quotes in the text": ("1.csv", '1,2,3,4,5,6,7,8,TOTAL, "RM" 1,200.00\n\n1,2,3,4,5,6,7,8.5,END\n', False),
    "plain text": ("1.txt", 'TOTAL, "RM" 1,200.00\nEND', False),
    "lines": ("1.json", json.dumps([{"text": 'TOTAL, "RM" 1,200.00'}, {"text": "END", "box": []}]), False),
    "one text": ("1.json", json.dumps({"text": 'TOTAL, "RM" 1,200.00\nEND'}), False),
    "a table of lines": ("1.csv", 'left,top,text\n1,2,"TOTAL, ""RM"" 1,200.00"\n1,9,END\n', False),
    "a table with pages": ("1.csv", 'page,text\n1,"TOTAL, ""RM"" 1,200.00"\n1,END\n', True),
    "lines under their name": ("1.json", json.dumps({"lines": [{"words": [{"text": "TOTAL,"}, {"text": '"RM" 1,200.00'}]}, "END"]}), False),
    "a form of FUNSD": ("1.json", json.dumps({"form": [{"text": 'TOTAL, "RM" 1,200.00', "words": []}, {"text": "END"}]}), False),
    "a form of FUNSD by words": ("1.json", json.dumps({"form": [{"text": "", "words": [{"text": 'TOTAL, "RM" 1,200.00\nEND'}]}]}), False),
    "boxes in a text file": ("1.txt", '1,2,3,4,5,6,7,8,TOTAL, "RM" 1,200.00\r\n1,2,3,4,5,6,7,8,END\r\n', False),
    "endings in upper case": ("1.CSV", '1,2,3,4,5,6,7,8,TOTAL, "RM" 1,200.00\r\n1,2,3,4,5,6,7,8.5,END\r\n', False),
    "a table of words by semicolons": ("1.csv", 'Word;x\r\n"TOTAL, ""RM"" 1,200.00";1\r\nEND;1\r\n', False),
    "pages of words": ("1.json", json.dumps({"pages": [{"words": [{"text": 'TOTAL, "RM" 1,200.00\nEND'}]}]}), True),
    "pages": ("1.json", json.dumps({"pages": [{"lines": [{"text": 'TOTAL, "RM" 1,200.00'}, {"text": "END"}]}]}), True),
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_text_is_known_from_a_file_of_the_same_stem(tmp_path: Path, case: str) -> None:
    name, content, is_by_page = TEXTS[case]
    (tmp_path / "1.JPG").touch()
    (tmp_path / name).write_text(content, encoding="utf-8-sig")
    [document], left_out = known_documents(tmp_path)
    told = document.texts[0].strip(), document.is_by_page, left_out
    assert ('TOTAL, "RM" 1,200.00\nEND', is_by_page, []) == told


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["1.csv", "1.txt", "1.json"])
def test_a_mark_at_a_texts_start_tells_how_it_is_written(tmp_path: Path, name: str, encoding: str) -> None:
    contents = {"1.csv": "page;text\r\n1;12,50 € für Ω\r\n", "1.txt": "12,50 € für Ω\r\n", "1.json": '{"text":\r\n"12,50 € für Ω"}'}
    (tmp_path / "1.png").touch()
    (tmp_path / name).write_bytes(f"\ufeff{contents[name]}".encode(encoding))
    [document], _ = known_documents(tmp_path)
    assert "12,50 € für Ω" == document.texts[0].strip()


@pytest.mark.parametrize(
    ("text", "encoding"),
    [("Größe", "latin-1"), ("Total", "utf-16-le"), ("Total", "utf-16-be"), ("Größe", "utf-16-le"), ("Total", "utf-32")],
)
@pytest.mark.parametrize("name", ["1.csv", "1.txt", "1.json"])
def test_a_text_in_an_unknown_encoding_is_told_with_those_that_are_known(tmp_path: Path, name: str, text: str, encoding: str) -> None:
    (tmp_path / "1.png").touch()
    (tmp_path / name).write_bytes(text.encode(encoding))
    with pytest.raises(InvalidInput, match="expected text in UTF-8, or in UTF-16 with a BOM"):
        known_documents(tmp_path)


@pytest.mark.parametrize(("told", "mark"), [("sep=;", ";"), ("sep=,", ","), ('"sep=;"', ";"), ("sep=\t", "\t")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_table_may_tell_what_parts_its_columns_in_a_line_before_it(tmp_path: Path, told: str, mark: str, encoding: str) -> None:
    (tmp_path / "1.pdf").touch()
    rows = [["text", "page"], ['"1,200; 50\t%"', "1"]]
    (tmp_path / "1.csv").write_bytes("\r\n".join([told, *map(mark.join, rows)]).encode(encoding))
    [document], _ = known_documents(tmp_path)
    assert (("1,200; 50\t%",), True) == (document.texts, document.is_by_page)


def test_lines_of_a_table_are_counted_from_the_one_that_tells_what_parts_its_columns(tmp_path: Path) -> None:
    (tmp_path / "1.pdf").touch()
    (tmp_path / "1.csv").write_text("sep=;\ntext;page\none;1\ntwo;none\n")
    with pytest.raises(InvalidInput, match="line 4: the page is 'none'"):
        known_documents(tmp_path)


def test_a_table_that_only_tells_what_parts_its_columns_is_empty(tmp_path: Path) -> None:
    (tmp_path / "1.pdf").touch()
    (tmp_path / "1.csv").write_text("sep=;\n\n")
    with pytest.raises(InvalidInput, match="is empty"):
        known_documents(tmp_path)


def test_pages_of_a_table_are_told_apart_and_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "1.pdf").touch()
    (tmp_path / "1.csv").write_text("text,page\none,1\nthree,3\nagain,3\n")
    [document], _ = known_documents(tmp_path)
    assert (("one", "", "three\nagain"), True) == (document.texts, document.is_by_page)


@pytest.mark.parametrize(("documents", "texts"), [("images", "annotations"), ("img", "box")])
def test_texts_may_lie_in_a_folder_of_their_own(tmp_path: Path, documents: str, texts: str) -> None:
    for folder in (documents, texts):
        (tmp_path / folder).mkdir()
    for name in ("82092117.png", "0001.v2.png", "without.png"):
        (tmp_path / documents / name).touch()
    for name in ("82092117", "0001.v2"):
        (tmp_path / texts / f"{name}.json").write_text('{"form": [{"text": "END"}]}')
    known, left_out = known_documents(tmp_path)
    assert ["0001.v2.png", "82092117.png"] == [document.path.name for document in known]
    assert ["without.png"] == [path.name for path in left_out]


def test_hidden_files_and_folders_are_no_documents(tmp_path: Path) -> None:
    for name in ("1.png", "._1.png"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "1.txt").write_text("one")
    known, left_out = known_documents(tmp_path)
    assert (["1.png"], []) == ([document.path.name for document in known], left_out)


def test_documents_without_a_text_are_left_out_and_told(tmp_path: Path) -> None:
    for name in ("b.pdf", "a.png", "c.tiff", "notes.docx"):
        (tmp_path / name).touch()
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "c.txt").write_text("two")
    known, left_out = known_documents(tmp_path)
    assert (["a.png", "c.tiff"], ["b.pdf"]) == ([document.path.name for document in known], [path.name for path in left_out])


BAD = {
    "a text in no box": ({"1.csv": b"1,2,3,4,TOTAL\n"}, "1.csv, line 1: expected eight coordinates"),
    "a box of words": ({"1.csv": b"1,2,3,4,5,6,7,8,END\na,b,c,d,e,f,g,h,END\n"}, "1.csv, line 2: expected eight coordinates"),
    "JSON that is none": ({"1.json": b"{"}, "1.json does not hold a text"),
    "JSON of another kind": ({"1.json": b'{"tokens": []}'}, 'expected JSON: a list of {"text": …}'),
    "JSON in too many brackets": ({"1.json": b"[" * 100_000}, "1.json does not hold a text"),
    "a table with commas in a text": (
        {"1.csv": b"page,text\n1,TOTAL, 5\n"},
        "1.csv, line 2: has more columns than page, text; put texts with commas in quotes",
    ),
    "lines without text": ({"1.json": b'[{"word": "END"}]'}, "1.json does not hold a text"),
    "pages that are no pages": ({"1.json": b'{"pages": [[5]]}'}, "1.json does not hold a text"),
    "a text that is none": ({"1.txt": b"\xff\xfe\x00"}, "1.txt cannot be read .UnicodeDecodeError"),
    "a table with a short row": ({"1.csv": b"left,top,text\n1,2\n"}, "1.csv, line 2: has no 3 columns"),
    "a table with a page that is none": ({"1.csv": b"page,text\nzero,END\n"}, "1.csv, line 2: the page is 'zero'"),
    "an empty table": ({"1.csv": b"\xef\xbb\xbf\r\n"}, "1.csv is empty; .* a blank page is an empty 1.txt"),
    "empty JSON": ({"1.json": b""}, "1.json is empty"),
    "a table with an open quote": ({"1.csv": b'text\n"TOTAL\nEND\n'}, "1.csv, line .: is no CSV .*quotation mark"),
    "words without a name of their column": ({"1.csv": b"TOTAL\nEND\n"}, "one of them text or word"),
    "two texts": ({"1.txt": b"", "1.csv": b""}, "1.png has several texts .1.csv, 1.txt"),
    "no text": ({}, "has no document with its text beside it"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_text_is_refused_clearly(tmp_path: Path, case: str) -> None:
    files, message = BAD[case]
    (tmp_path / "1.png").touch()
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=message):
        known_documents(tmp_path)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="absent is no folder; expected one with documents"):
        known_documents(tmp_path / "absent")
