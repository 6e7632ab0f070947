"""Small invented files in the forms in which the authors of corpora distribute them, one function per form."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable

PUBTATOR = """\
{pmid}|t|Atenolol-induced nephritis.
{pmid}|a|Patients took atenolol.
{pmid}\t0\t8\tAtenolol\tChemical\tD001262
{pmid}\t17\t26\tnephritis\t{disease}\tD009393
{pmid}\t42\t50\tatenolol\tChemical\tD001262
{pmid}\tCID\tD001262\tD009393

"""
YES_NO = {"id": "b", "type": "yesno", "body": "Is {}?", "exact_answer": "yes", "snippets": [{"text": "It is."}]}


def write(folder: pathlib.Path, files: dict[str, str]) -> pathlib.Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8"))
    return folder


def bc5cdr(folder: pathlib.Path) -> pathlib.Path:
    names = {"Training": 1, "Development": 2, "Test": 3}
    return write(
        folder / "CDR_Data",
        {f"CDR_{name}Set.PubTator.txt": PUBTATOR.format(pmid=pmid, disease="Disease") for name, pmid in names.items()},
    )


def ncbi_disease(folder: pathlib.Path) -> pathlib.Path:
    names = {"train": 1, "develop": 2, "test": 3}
    texts = {
        f"NCBI{name}set_corpus.txt": "\n" + PUBTATOR.format(pmid=pmid, disease="SpecificDisease")
        for name, pmid in names.items()
    }
    return write(folder, texts)


def jnlpba(folder: pathlib.Path) -> pathlib.Path:
    def document(number: int) -> str:
        return f"###MEDLINE:{number}\n\nIL-2\tB-DNA\ngene\tI-DNA\n\nT\tB-cell_type\ncells\tI-cell_type\n.\tO\n\n"

    train = "".join(map(document, range(203)))
    return write(folder, {"Genia4ERtask2.iob2": train, "Genia4EReval2.iob2": document(900)})


def bc2gm(folder: pathlib.Path) -> pathlib.Path:
    sentences = [f"P{number} The gene IL 2 binds p53." for number in range(7)]
    mentions = [f"P{number}|7 9|IL 2\nP{number}|15 17|p53" for number in range(7)]
    files = {"train/train.in": sentences, "train/GENE.eval": mentions}
    files |= {"test/test.in": sentences[:2], "test/GENE.eval": mentions[:2], "train/ALTGENE.eval": ["P0|7 8|IL"]}
    return write(folder, {name: "\n".join(lines) + "\n" for name, lines in files.items()})


def linnaeus(folder: pathlib.Path) -> pathlib.Path:
    lines = ["#species\tdocument\tstart\tend\ttext\tcode"]
    lines += [f"species:ncbi:9606\tpmcA{n}\t4\t9\thuman\t" for n in range(3)]
    files = {"tags.tsv": "\n".join(lines) + "\n"}
    files |= {f"txt/pmcA{n}.txt": "The human cell.\nNo more.\n" for n in range(3)}
    files |= {f"split/{name}.txt": f"pmcA{n}\n" for n, name in enumerate(("train", "devel", "test"))}
    return write(folder, files)


def species_800(folder: pathlib.Path) -> pathlib.Path:
    files = {"S800.tsv": "".join(f"9606\tbact{n}:10{n}\t4\t8\thuman\n" for n in range(3))}
    files |= {f"abstracts/bact{n}.txt": "The human cell.\nNo more.\n" for n in range(3)}
    files |= {f"split/{name}.txt": f"10{n}\n" for n, name in enumerate(("train", "devel", "test"))}
    return write(folder, files)


def bc4chemd(folder: pathlib.Path) -> pathlib.Path:
    files = {}
    for number, name in enumerate(("training", "development", "evaluation")):
        files[f"{name}.abstracts.txt"] = f"{number}\tAtenolol.\tPatients took atenolol.\n"
        files[f"{name}.annotations.txt"] = (
            f"{number}\tT\t0\t8\tAtenolol\tTRIVIAL\n{number}\tA\t14\t22\tatenolol\tTRIVIAL\n"
        )
    return write(folder, files)


def ebm_pico(folder: pathlib.Path) -> pathlib.Path:
    files = {}
    for number in range(20):
        part = "test/gold" if number < 2 else "train"
        files[f"ebm_nlp_1_00/documents/{number}.tokens"] = "Sixty women took atenolol daily ."
        for element, labels in {
            "participants": "1 1 0 0 0 0", "interventions": "0 0 0 1 0 0", "outcomes": "0 1 0 0 0 0",
        }.items():  # fmt: skip
            name = f"annotations/aggregated/starting_spans/{element}/{part}/{number}_AGGREGATED.ann"
            files[f"ebm_nlp_1_00/{name}"] = labels
    return write(folder, files)


def i2b2_2010(folder: pathlib.Path) -> pathlib.Path:
    text, concept = "Record 7\nHe took atenolol 50 mg .\n", 'c="atenolol 50 mg" 2:2 2:4||t="treatment"\n'
    files = {}
    for number in range(20):
        files[f"training/beth/txt/record-{number}.txt"] = text
        files[f"training/beth/concept/record-{number}.con"] = concept
    files |= {"test_data/0001.txt": text, "reference_standard_for_test_data/concepts/0001.con": concept}
    return write(folder, files)


def blue(text: str, labels: tuple[str, ...]) -> Callable[[pathlib.Path], pathlib.Path]:
    def made(folder: pathlib.Path) -> pathlib.Path:
        rows = [f"{number}\t{text}\t{label}" for number, label in enumerate(labels)]
        table = "index\tsentence\tlabel\n" + "\n".join(rows) + "\n"
        return write(folder, {f"data/{split}.tsv": table for split in ("train", "dev", "test")})

    return made


def pairs(folder: pathlib.Path) -> pathlib.Path:
    table = "index\tgenre\tsentence1\tsentence2\tscore\n0\tx\tA gene.\tA protein.\t3.2\n1\tx\tA cell.\tA drug.\t0.0\n"
    return write(folder, {f"{split}.tsv": table for split in ("train", "dev", "test")})


def gad(folder: pathlib.Path) -> pathlib.Path:
    lines = [f"A @GENE$ variant in @DISEASE$ number {number}.\t{number % 2}" for number in range(40)]
    test = ["index\tsentence\tlabel", *(f"{number}\t{line}" for number, line in enumerate(lines[:4]))]
    return write(folder, {"1/train.tsv": "\n".join(lines) + "\n", "1/test.tsv": "\n".join(test) + "\n"})


def mednli(folder: pathlib.Path) -> pathlib.Path:
    rows = [
        {"sentence1": "No fever.", "sentence2": "He is well.", "gold_label": label, "pairID": label}
        for label in ("entailment", "neutral", "contradiction")
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    return write(folder, {f"mli_{split}_v1.jsonl": text for split in ("train", "dev", "test")})


def hoc(folder: pathlib.Path) -> pathlib.Path:
    files = {}
    for number in range(30):
        files[f"text/{number}.txt"] = "Cells grew .\nThey moved .\n"
        files[f"labels/{number}.txt"] = "< <Resisting cell death--Apoptosis ANDCellular energetics--"
    return write(folder, files)


def pubmedqa(folder: pathlib.Path) -> pathlib.Path:
    """Twenty questions of each answer; the ground truth is checked against the split that the seed gives."""
    from electramed_jax.finetune.corpora.texts.pubmedqa import ANSWERS, split_ids

    labels = {str(100 + number): ANSWERS[number % 3] for number in range(60)}
    records = {
        key: {
            "QUESTION": f"Does {key} help?", "CONTEXTS": ["It was tried.", "It helped."], "LABELS": ["A", "B"],
            "LONG_ANSWER": "It helps.", "final_decision": label,
        }
        for key, label in labels.items()
    }  # fmt: skip
    truth = {key: labels[key] for key in split_ids(labels)[2]}
    return write(folder, {"ori_pqal.json": json.dumps(records), "test_ground_truth.json": json.dumps(truth)})


def bioasq_yesno(folder: pathlib.Path) -> pathlib.Path:
    def file(first: int, count: int) -> str:
        questions = [
            YES_NO | {"id": f"b{n}", "body": f"Is {n} so?", "exact_answer": ("yes", "no")[n % 2]}
            for n in range(first, first + count)
        ]
        return json.dumps({"questions": questions})  # one line, as some files of BioASQ are

    return write(folder, {"training7b.json": file(0, 40), "7B1_golden.json": file(38, 4)})


def squad(version: str) -> Callable[[pathlib.Path], pathlib.Path]:
    def made(folder: pathlib.Path) -> pathlib.Path:
        def text(split: str) -> str:
            qas = [{"id": split, "question": f"Which {split}?", "answers": [{"text": "IL-2", "answer_start": 9}]}]
            entry = {"title": "t", "paragraphs": [{"context": "The gene IL-2.", "qas": qas}]}
            return json.dumps({"version": version, "data": [entry]})

        return write(folder, {f"{split}-v{version}.json": text(split) for split in ("train", "dev")})

    return made


def bioasq_factoid(folder: pathlib.Path) -> pathlib.Path:
    squad("7b")(folder)
    (folder / "train-v7b.json").rename(folder / "BioASQ-train-factoid-7b-snippet.json")
    factoid = {
        "id": "f",
        "type": "factoid",
        "body": "Which?",
        "exact_answer": [["IL-2"]],
        "snippets": [{"text": "IL-2."}],
    }
    return write(folder, {"7B1_golden.json": json.dumps({"questions": [factoid, YES_NO]})})


# The files of each corpus.
SOURCES: dict[str, Callable[[pathlib.Path], pathlib.Path]] = {
    "bc5-chemical": bc5cdr,
    "bc5-disease": bc5cdr,
    "ncbi-disease": ncbi_disease,
    "bc2gm": bc2gm,
    "jnlpba": jnlpba,
    "jnlpba-merged": jnlpba,
    "linnaeus": linnaeus,
    "species-800": species_800,
    "bc4chemd": bc4chemd,
    "ebm-pico": ebm_pico,
    "i2b2-2010": i2b2_2010,
    "chemprot": blue("The @CHEMICAL$ of @GENE$.", ("CPR:3", "false")),
    "ddi": blue("The @DRUG$ of @DRUG$.", ("DDI-effect", "DDI-false")),
    "gad": gad,
    "biosses": pairs,
    "medsts": pairs,
    "mednli": mednli,
    "hoc": hoc,
    "pubmedqa": pubmedqa,
    "pubmedqa-long-answer": pubmedqa,
    "bioasq-yesno": bioasq_yesno,
    "squad-1.1": squad("1.1"),
    "squad-2": squad("2.0"),
    "bioasq-factoid": bioasq_factoid,
}
