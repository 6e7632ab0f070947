from __future__ import annotations

import gzip
import json

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.data.corpus import eval_texts

FIRST = "The invented drug zolamine lowered pressure in rats ."
SECOND = "No harm was seen ( p = 0.3 ) ."


def read(folder, text: str, name: str = "file.txt") -> tuple[set[int], list[str]]:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return eval_texts.read_passages(str(path))


def token_lines(separator: str, *sentences: str) -> str:
    blocks = ["\n".join(f"{token}{separator}O" for token in sentence.split()) for sentence in sentences]
    return "\n\n".join(blocks) + "\n"


@pytest.mark.parametrize("separator", [" ", "\t", " NN B-NP "])
def test_one_token_per_line_gives_the_sentences(tmp_path, separator):
    text = "\n-DOCSTART- O\n\n" + token_lines(separator, FIRST, SECOND)
    assert read(tmp_path, text) == (set(), [FIRST, SECOND])


def test_treebank_codes_for_brackets_are_not_words(tmp_path):
    text = token_lines(" ", SECOND.replace("(", "-LRB-").replace(")", "-RRB-"), FIRST)
    assert read(tmp_path, text)[1] == ["No harm was seen p = 0.3 .", FIRST]


def test_squad_gives_the_sentences_of_the_contexts(tmp_path):
    answer = {"text": "zolamine", "answer_start": 0}
    qas = [{"id": "5be48c39133db5eb7800001d_001", "question": "Which drug lowers pressure?", "answers": [answer]}]
    context = {"context": "Zolamine lowered it. No harm was seen.", "qas": qas}
    text = json.dumps({"version": "1", "data": [{"title": "BioASQ", "paragraphs": [context]}]})
    pmids, passages = read(tmp_path, text, "test.json")
    assert pmids == set()
    assert {"Zolamine lowered it.", "No harm was seen."} <= set(passages)
    assert not any("Which drug" in passage for passage in passages)


def test_bioasq_gives_snippets_and_the_pmids_of_the_documents(tmp_path):
    question = {
        "body": "Which drug?",
        "ideal_answer": ["It is zolamine."],
        "documents": ["http://www.ncbi.nlm.nih.gov/pubmed/90000001", "https://pubmed.ncbi.nlm.nih.gov/90000002/"],
        "snippets": [{"text": FIRST, "document": "http://www.ncbi.nlm.nih.gov/pubmed/90000003"}],
    }
    found = read(tmp_path, json.dumps({"questions": [question]}), "golden.json.gz")
    assert found == ({90000001, 90000002, 90000003}, [FIRST])


def test_jsonl_documents_give_pmids_and_sentences(tmp_path):
    lines = [
        {"id": "1", "pmid": 90000001, "title": "A title.", "sections": [["AIM", FIRST]]},
        {"pmid": "90000002", "text": SECOND},
    ]
    text = "\n".join(map(json.dumps, lines))
    assert read(tmp_path, text, "a.jsonl") == ({90000001, 90000002}, ["A title.", "AIM", FIRST, SECOND])


def test_pubtator_gives_pmids_titles_and_abstracts(tmp_path):
    text = f"90000001|t|A title.\n90000001|a|{FIRST}\n90000001\t0\t3\tzol\tChemical\tD1\n\n90000002|t|Other.\n"
    assert read(tmp_path, text) == ({90000001, 90000002}, ["A title.", FIRST, "Other."])


def test_relation_tables_give_pmids_and_the_text_between_anonymized_entities(tmp_path):
    text = (
        "\ufeffindex\tsentence\tlabel\n"
        '90000001.T1.T2\tThe invented drug @CHEMICAL$ lowered it, in "many" rats, through @GENE$.\tCPR:4\n'
        "DDI-DrugBank.d1.s0.p0\tNo harm was seen with @DRUG$.\tfalse\n"
    )
    pmids, passages = read(tmp_path, text, "dev.csv")
    assert pmids == {90000001}
    assert passages == ["The invented drug", 'lowered it, in "many" rats, through', ".", "No harm was seen with", "."]


def test_quoted_fields_of_comma_separated_tables_are_read(tmp_path):
    text = f'pmid,sentence,label\n90000001,"{FIRST[:-2]}, and more",1\n90000002,No harm was seen here,0\n'
    assert read(tmp_path, text, "a.csv") == (
        {90000001, 90000002},
        [f"{FIRST[:-2]}, and more", "No harm was seen here"],
    )


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "windows-1252"])
def test_other_encodings_are_read(tmp_path, encoding):
    text = "The Sj\u00f6gren patients of this invented study had no na\u00efve T cells."
    (tmp_path / "file.txt").write_bytes(text.encode(encoding))
    assert eval_texts.read_passages(str(tmp_path / "file.txt")) == (set(), [text])


def test_a_field_of_any_length_is_read(tmp_path):
    long = "word " * 50_000 + "and its end"
    assert read(tmp_path, f'id,text\n1,"{long}"\n2,"{long} too"\n')[1] == [long, f"{long} too"]


def test_json_that_is_nested_too_deeply_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"file\.txt: its JSON is nested too deeply"):
        read(tmp_path, "[" * 100_000)


def test_a_row_number_is_not_a_pmid(tmp_path):
    assert read(tmp_path, f"0\t{FIRST}\n17\t{SECOND}\n")[0] == set()


def test_a_list_of_numbers_is_a_list_of_pmids(tmp_path):
    assert read(tmp_path, "90000001\n12\n\n") == ({90000001, 12}, [])


def test_anything_else_is_plain_text(tmp_path):
    text = f"{FIRST} It continued, and on,\nto the next line. {SECOND}\n"
    assert read(tmp_path, text)[1][:2] == [FIRST, "It continued, and on,"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "neither a PMID nor text"),
        (b"{}", "neither a PMID nor text"),
        (b'<?xml version="1.0"?><collection/>', "unknown evaluation format"),
        (b"PK\x03\x04\0\0", "unknown evaluation format"),
        (b"\x1f\x8b\x08half", "gzip data is damaged"),
    ],
)
def test_a_file_without_pmids_or_text_is_rejected(tmp_path, data, message):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(UserError, match=message):
        eval_texts.read_passages(str(tmp_path / "a"))


# Sentences, pairs and questions as counted in SOURCES.md in the folder of the files.
@pytest.mark.parametrize(
    ("path", "pmids", "passages"),
    [
        ("ner/BC5CDR/electramed/test.txt", 0, 4145),
        ("ner/BC5CDR/mtl2016/BC5CDR-IOB/test.tsv", 0, 4797),
        ("ner/JNLPBA/electramed/test.txt", 0, 3869),
        ("ner/NCBI-disease/electramed/test.txt", 0, 941),
        ("ner/NCBI-disease/mtl2016/NCBI-disease-IOB/test.tsv", 0, 940),
    ],
)
def test_real_corpora_have_the_published_number_of_sentences(shared_data, path, pmids, passages):
    found = eval_texts.read_passages(str(shared_data / "eval" / path))
    assert (len(found[0]), len(found[1])) == (pmids, passages)


def test_the_chemprot_test_set_gives_every_pmid_of_its_table(shared_data):
    path = shared_data / "eval" / "re" / "ChemProt" / "rebuilt" / "test.csv"
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    assert eval_texts.read_passages(str(path))[0] == {int(line.split(".", 1)[0]) for line in lines}
