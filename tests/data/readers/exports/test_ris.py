from __future__ import annotations

from read_files import read_file

RECORD = """TY  - JOUR
TI  - An invented title
AU  - Nobody, A.
PY  - 2019/03/01
AB  - Kinases bind in mice. They
do so twice.
DO  - https://doi.org/10.9999/ABC.2
UR  - https://pubmed.ncbi.nlm.nih.gov/99000001/
LA  - English
ER  -{blank}
""".replace("{blank}", " ")


def test_a_reference_becomes_a_document(tmp_path):
    alone = "TY  - BOOK\nT1  - Alone\nER  - \n"
    (tmp_path / "a.ris").write_text(RECORD + "\n" + alone + RECORD.replace("99000001", "99000002"))
    (first, second), drops = read_file(tmp_path / "a.ris")
    assert first.text == "An invented title\nKinases bind in mice. They do so twice."
    assert (first.pmid, first.doi, first.year, first.language) == (99_000_001, "10.9999/abc.2", 2019, "eng")
    assert second.pmid == 99_000_002 and drops == {"title_alone": 1}


def test_lines_that_end_in_a_carriage_return_and_ends_of_records_with_fewer_blanks_are_no_text(tmp_path):
    records = (
        "TY  - JOUR\r\nTI  - One.\r\nAB  -\r\nER  -\r\nTY  - JOUR\nTI  - Two\nER -\nTY  - JOUR\nTI  - ER - x\nER  -\n"
    )
    (tmp_path / "a.ris").write_bytes(records.encode())
    found, drops = read_file(tmp_path / "a.ris", titles_alone=True)
    assert [document.text for document in found] == ["One.", "Two", "ER - x"] and drops == {}
