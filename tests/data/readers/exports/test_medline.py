from __future__ import annotations

import pytest
from read_files import read_file

from electramed_jax.common.errors import UserError

RECORD = """PMID- 99000001
OWN - NLM
LR  - 20230517
DP  - 2023 May 17
TI  - An invented title about kinases that goes on{blank}
      in a second line.
LID - 10.9999/abc.1 [doi]
AB  - BACKGROUND: Kinases bind. RESULTS: They do so in mice,{blank}
      and elsewhere. Copyright © 2023 Elsevier Ltd. All rights reserved.
LA  - eng
PMC - PMC9900001
""".replace("{blank}", " ")  # the export leaves a blank at the end of a line that goes on


def test_a_record_becomes_the_document_of_its_pubmed_record(tmp_path):
    (tmp_path / "a.nbib").write_text("\n" + RECORD + "\n" + RECORD.replace("99000001", "99000002"))
    (first, second), drops = read_file(tmp_path / "a.nbib")
    assert first.title == "An invented title about kinases that goes on in a second line."
    assert first.sections == ((None, "BACKGROUND: Kinases bind. RESULTS: They do so in mice, and elsewhere."),)
    assert (first.id, first.pmid, first.year, first.source, first.language, first.revised) == (
        "PMID99000001",
        99_000_001,
        2023,
        "pubmed",
        "eng",
        20_230_517,
    )
    assert (first.pmcid, first.doi) == ("PMC9900001", "10.9999/abc.1")
    assert second.pmid == 99_000_002 and drops == {}


def test_translated_titles_lose_their_brackets_and_records_without_abstract_are_counted(tmp_path):
    text = RECORD.replace("An invented", "[An invented").replace("second line.", "second line].")
    (tmp_path / "a.txt").write_text(text + "\nPMID- 99000003\nOWN - NLM\nTI  - Alone.\n\nPMID- 7\nOWN - NLM\n")
    (document,), drops = read_file(tmp_path / "a.txt")
    assert document.title == "An invented title about kinases that goes on in a second line."
    assert drops == {"title_alone": 1, "no_text": 1}


def test_a_record_with_a_damaged_pmid_is_counted(tmp_path):
    (tmp_path / "a.txt").write_text(RECORD.replace("99000001", "none") + "\n" + RECORD)
    found, drops = read_file(tmp_path / "a.txt")
    assert len(found) == 1 and drops == {"bad_record": 1}
    with pytest.raises(UserError, match=r"a\.txt, line 1: record without a PMID"):
        read_file(tmp_path / "a.txt", strict=True)


def test_genuine_exports(shared_data):
    (one,), drops = read_file(shared_data / "formats" / "medline" / "pubmed_result4.nbib")
    assert drops == {} and one.pmid == 37_195_739 and one.doi == "10.1091/mbc.e22-12-0560"
    assert one.title == (
        "High extracellular glucose promotes cell motility by modulating cell deformability and contractility via "
        "cAMP-RhoA-ROCK axis in human breast cancer cells."
    )
    assert one.text.endswith("behaviors relevant in cancer metastasis.")
    found, drops = read_file(shared_data / "formats" / "medline" / "pubmed_result2.txt")
    assert [document.pmid for document in found] == [16_403_221, 14_871_861] and drops == {}
    assert "ASTRAL compendium provides" in found[0].text, "one space where a line ends in a blank"
