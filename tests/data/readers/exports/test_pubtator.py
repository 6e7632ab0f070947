from __future__ import annotations

import bioc.pubtator
from read_files import read_file


def test_annotations_are_not_read_as_prose(tmp_path):
    text = "99000001|t|A title.\n99000001|a|An abstract of kinases.\n99000001\t0\t1\tA\tGene\t7\n\n"
    (tmp_path / "a.txt").write_text(text + "99000002|t|Another.\n99000002|a|\n99000002\tCID\tD1\tD2\n")
    (first, second), drops = read_file(tmp_path / "a.txt")
    assert (first.text, first.pmid) == ("A title.\nAn abstract of kinases.", 99_000_001)
    assert (second.text, second.sections) == ("Another.", ()) and drops == {}


def test_lines_of_no_known_form_are_counted(tmp_path):
    (tmp_path / "a.txt").write_text("1234|t|A title.\n1234|a|An abstract.\nprose without any form\n")
    found, drops = read_file(tmp_path / "a.txt")
    assert len(found) == 1 and drops == {"bad_line": 1}


def test_genuine_articles_as_bioc_reads_them(shared_data):
    path = shared_data / "formats" / "pubtator" / "CDR_sample.txt"
    found, drops = read_file(path, strict=True)
    with open(path, encoding="utf-8") as file:
        wanted = bioc.pubtator.load(file)
    assert len(found) == 50 and drops == {}
    assert [(d.id, d.title, d.sections[0][1].split()) for d in found] == [
        (f"PMID{w.pmid}", w.title, w.abstract.split()) for w in wanted
    ]
