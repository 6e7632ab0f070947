"""`electramed predict`: every input and output format, errors in one line, no partial output file."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import pathlib

import pytest
from exported import exported

from electramed_jax import cli
from electramed_jax.common import console
from electramed_jax.data.synthetic import pubmed_xml
from electramed_jax.finetune import predictor

pytestmark = pytest.mark.slow

TABLE = "index\tsentence\tlabel\n7\tThe dose of @DRUG$.\ta\n9\tpatients with @DRUG$\t?\n"
SQUAD = {
    "data": [
        {
            "paragraphs": [
                {
                    "context": "the dose of metoprolol treated acute nephritis in the patients",
                    "qas": [
                        {"id": "q_000", "question": "the drug"},
                        {"id": "q_001", "question": "the drug", "answers": [{"text": "elsewhere", "answer_start": 3}]},
                    ],
                }
            ]
        }
    ]
}
FACTOIDS = {
    "questions": [
        {"id": "f", "type": "factoid", "body": "the drug", "snippets": [{"text": "a dose"}, {"text": "with timolol"}]},
        {"id": "y", "type": "yesno", "body": "treated", "snippets": [{"text": "a dose"}]},
    ]
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    return {kind: exported(str(tmp_path_factory.mktemp(kind) / "model"), kind) for kind in ("ner", "relations", "qa")}


@pytest.fixture
def input_folder(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    pathlib.Path("table.tsv").write_text(TABLE)
    pathlib.Path("squad.json").write_text(json.dumps(SQUAD))
    pathlib.Path("factoids.json").write_text(json.dumps(FACTOIDS))
    pathlib.Path("notes.txt").write_text("A dose of atenolol\nby patients.\n\n\nacute arthritis\n")
    pathlib.Path("half.jsonl").write_text('{"id": "1", "text": "a dose"}\n{"id": "2"}\n')
    pathlib.Path("empty.txt").write_text("")
    return tmp_path


def predict(folders, kind: str, *arguments: str) -> list[dict]:
    assert cli.main(["predict", f"--model={folders[kind]}", *arguments, "--output=out"]) == 0
    return [json.loads(line) for line in pathlib.Path("out").read_text().splitlines()]


def test_texts_and_pubmed_xml_in_one_command_give_a_line_each(folders, input_folder):
    pubmed_xml.write_pubmed_xml("xml", articles=4, num_files=1)
    (path,) = pathlib.Path("xml").iterdir()
    content = path.read_bytes()
    content = gzip.decompress(content) if path.suffix == ".gz" else content
    pathlib.Path("articles.xml.gz").write_bytes(gzip.compress(content))
    rows = predict(folders, "ner", "--input", "notes.txt", "articles.xml.gz")
    assert sum("pmid" in row for row in rows) == 4 and len(rows) == 6
    for row in rows:
        for entity in row["entities"]:
            assert row["text"][entity["start"] : entity["end"]] == entity["text"]
            assert entity["type"] in ("Disease", "Drug") and 0 < entity["confidence"] <= 1
    assert sum(len(row["entities"]) for row in rows) > 4


def test_a_table_of_texts_is_read_and_written_for_brat_and_as_a_page(folders, input_folder):
    pathlib.Path("records.csv").write_text(
        "pmid,title,abstract\n7,A dose.,with atenolol and timolol\n8,,acute arthritis\n"
    )
    rows = predict(folders, "ner", "--input", "records.csv")
    assert [(row["pmid"], row["text"]) for row in rows] == [
        (7, "A dose.\nwith atenolol and timolol"),
        (8, "acute arthritis"),
    ]
    arguments = ["predict", f"--model={folders['ner']}", "--input", "records.csv"]
    assert cli.main([*arguments, "--format=brat", "--output=annotated"]) == 0
    assert sorted(path.name for path in pathlib.Path("annotated").iterdir()) == ["7.ann", "7.txt", "8.ann", "8.txt"]
    assert cli.main([*arguments, "--format=brat", "--output=annotated"]) == 2, "an earlier folder is not replaced"
    assert cli.main([*arguments, "--html", "--output=page.html"]) == 0
    page = pathlib.Path("page.html").read_text()
    assert page.count("<mark") == sum(len(row["entities"]) for row in rows) and page.endswith("</html>\n")


@pytest.mark.parametrize("kind, source", [("relations", "table.tsv"), ("qa", "squad.json")])
def test_labels_and_answers_are_written_as_csv_and_as_a_page(folders, input_folder, kind, source):
    rows = predict(folders, kind, "--input", source)
    arguments = ["predict", f"--model={folders[kind]}", "--input", source]
    assert cli.main([*arguments, "--format=csv", "--output=out.csv"]) == 0
    with open("out.csv", newline="") as file:
        table = list(csv.DictReader(file))
    if kind == "qa":
        wanted = [(row["id"], str(one["start"]), one["text"]) for row in rows for one in row["answers"]]
        assert [(row["id"], row["start"], row["text"]) for row in table] == wanted
    else:
        assert [(int(row["line"]), row["label"]) for row in table] == [(row["line"], row["label"]) for row in rows]
        assert float(table[0]["probability of a"]) == pytest.approx(rows[0]["probabilities"]["a"], abs=1e-6)
    assert cli.main([*arguments, "--html", "--output=page.html"]) == 0
    assert pathlib.Path("page.html").read_text().count('<section class="card">') == len(rows)


def test_the_prediction_of_one_text_is_printed_to_standard_output(folders, input_folder, capsys):
    assert cli.main(["predict", f"--model={folders['ner']}", "--text", "with timolol"]) == 0
    assert json.loads(capsys.readouterr().out)["text"] == "with timolol"
    assert cli.main(["predict", f"--model={folders['relations']}", "--text", "with timolol"]) == 0
    assert json.loads(capsys.readouterr().out)["label"] in ("a", "b", "c")


def test_rows_are_labelled_without_reading_their_labels(folders, input_folder):
    rows = predict(folders, "relations", "--input", "table.tsv")
    assert [row["line"] for row in rows] == [2, 3]
    for row in rows:
        assert row["probability"] == max(row["probabilities"].values())
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert [row["probabilities"] for row in predict(folders, "relations", "--input", "notes.txt")]


def test_questions_are_answered_in_the_formats_of_squad_and_bioasq(folders, input_folder):
    rows = predict(folders, "qa", "--input", "squad.json")
    context = SQUAD["data"][0]["paragraphs"][0]["context"]
    assert [row["id"] for row in rows] == ["q_000", "q_001"]
    for row in rows:
        assert row["answer"] == row["answers"][0]["text"]
        assert all(context[one["start"] : one["end"]] == one["text"] for one in row["answers"])
    options = [f"--model={folders['qa']}", "--output=out"]
    assert cli.main(["predict", *options, "--input", "squad.json", "--format=squad"]) == 0
    assert json.loads(pathlib.Path("out").read_text()) == {row["id"]: row["answer"] for row in rows}
    assert cli.main(["predict", *options, "--input", "factoids.json", "--format=bioasq"]) == 0
    (question,) = json.loads(pathlib.Path("out").read_text())["questions"]
    assert question["id"] == "f" and 1 <= len(question["exact_answer"]) <= 5


def test_damaged_lines_are_skipped_and_counted_or_with_strict_an_error(folders, input_folder, capsys):
    (row,) = predict(folders, "ner", "--input", "half.jsonl")
    assert row["id"] == "1" and "1 skipped: bad_record" in capsys.readouterr().err
    pathlib.Path("out").unlink()
    assert cli.main(["predict", f"--model={folders['ner']}", "--input", "half.jsonl", "--output=out", "--strict"]) == 2
    assert "half.jsonl, line 2: wanted" in capsys.readouterr().err and not pathlib.Path("out").exists()


ODD_TEXTS = {
    "half a surrogate pair": "a dose \ud800 of atenolol",
    "nul": "a dose\0 of \0 atenolol",
    "right to left": "a \u202e dose \u05d0\u05d1 \u200f of atenolol",
    "emoji": "\U0001f469\u200d\U0001f469\u200d\U0001f467 a dose \U0001f9ec of \U0001f3f3\ufe0f\u200d\U0001f308 atenolol",
    "only what the tokenizer drops": "\0\u200d\ufeff",
    "combining": "a d\u0308o\u0301\u0302\u0303se of atenolol",
    "no blank": "acgt" * 250_000,
    "only marks": "." * 20_000,
}


@pytest.mark.parametrize("format", ["jsonl", "bioc", "pubtator"])
def test_entities_of_odd_texts_are_at_their_offsets(folders, input_folder, format):
    lines = [json.dumps({"id": name, "text": text}) for name, text in ODD_TEXTS.items()]
    pathlib.Path("odd.jsonl").write_text("\n".join(lines))
    arguments = ["--input", "odd.jsonl", "--output=out", f"--format={format}"]
    assert cli.main(["predict", f"--model={folders['ner']}", *arguments]) == 0
    output = pathlib.Path("out").read_text(encoding="utf-8")
    if format == "jsonl":
        rows = [json.loads(line) for line in output.splitlines()]
        assert [row["id"] for row in rows] == list(ODD_TEXTS)
        for row in rows:
            assert row["text"] == ODD_TEXTS[row["id"]].replace("\ud800", "\ufffd")
            assert all(row["text"][one["start"] : one["end"]] == one["text"] for one in row["entities"])
        assert sum(len(row["entities"]) for row in rows)


def test_odd_texts_get_labels_and_answers(folders, input_folder):
    lines = [json.dumps({"text": text}) for text in ODD_TEXTS.values()]
    pathlib.Path("odd.jsonl").write_text("\n".join(lines))
    assert len(predict(folders, "relations", "--input", "odd.jsonl")) == len(ODD_TEXTS)
    paragraphs = [
        {"context": text, "qas": [{"id": name, "question": f"the drug {text[:40]}"}]}
        for name, text in ODD_TEXTS.items()
    ]
    pathlib.Path("odd.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    rows = predict(folders, "qa", "--input", "odd.json")
    assert [row["id"] for row in rows] == list(ODD_TEXTS)
    for row in rows:
        context = ODD_TEXTS[row["id"]].replace("\ud800", "\ufffd")
        assert all(context[one["start"] : one["end"]] == one["text"] for one in row["answers"])


def test_a_file_of_which_almost_nothing_can_be_used_is_named(folders, input_folder, capsys):
    pathlib.Path("lost.jsonl").write_text('{"text": "a dose"}\n' + "x" * 9000)
    assert len(predict(folders, "ner", "--input", "lost.jsonl")) == 1
    assert "lost.jsonl: only 0.20% of it can be used: line 2: not valid JSON (bad_json: 1)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "kind, arguments, message",
    [
        ("ner", [], "give either --input FILES or --text TEXT"),
        ("ner", ["--text", " "], "--text is empty"),
        ("ner", ["--input", "nowhere.txt"], "nowhere.txt: no such file"),
        ("ner", ["--input", "empty.txt"], "empty.txt: no document in it (empty)"),
        (
            "ner",
            ["--input", "notes.pdf"],
            "notes.pdf: no document in it (nothing in it can be used: unknown file format",
        ),
        ("ner", ["--input", "counts.csv"], "counts.csv: no field"),
        ("ner", ["--input", "notes.txt", "--format=brat"], "--format=brat writes a folder; name a new local folder"),
        ("ner", ["--input", "notes.txt", "--format=bioasq"], "a model for ner; wanted one of jsonl, bioc, pubtator"),
        ("ner", ["--input", "notes.txt", "--json"], "add --output=FILE"),
        ("ner", ["--input", "notes.txt", "--batch_size=0"], "--batch_size=0: wanted 1 or more"),
        ("relations", ["--input", "notes.pdf"], "notes.pdf: no document in it"),
        ("relations", ["--input", "table.tsv", "--text_column=words"], "table.tsv, line 2: no column words"),
        (
            "relations",
            ["--input", "other.tsv"],
            "other.tsv, line 2: the vocabulary lacks pieces for",
        ),
        (
            "qa",
            ["--input", "table.tsv"],
            "table.tsv: the model predicts answers to questions; wanted",
        ),
        ("qa", ["--text", "of"], "--text contains no question"),
    ],
)
def test_a_user_error_is_one_line(folders, input_folder, capsys, kind, arguments, message):
    pathlib.Path("other.tsv").write_text("sentence\nof @X1$ a\n")
    pathlib.Path("notes.pdf").write_bytes(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n\0\1")
    pathlib.Path("counts.csv").write_text("year,count\n1999,3\n2000,4\n")
    assert cli.main(["predict", f"--model={folders[kind]}", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize("kind", ["ner", "relations"])
def test_progress_shows_the_rate_and_the_time_left(folders, input_folder, kind, capsys, monkeypatch):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.0)
    for name in ("one", "two"):
        pathlib.Path(f"{name}.txt").write_text("\n\n".join(["A dose of atenolol"] * 300))
    arguments = ["--input", "one.txt", "two.txt", "--output=out", "--batch_size=1"]
    assert cli.main(["predict", f"--model={folders[kind]}", *arguments]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("predicting: ")]
    assert any(" of 600 " in line and "/s, " in line and line.endswith(" left") for line in lines)
    assert lines[-1].startswith("predicting: 600 ") and " in " in lines[-1]


def test_a_failure_leaves_an_existing_output_unchanged(folders, input_folder, monkeypatch):
    pathlib.Path("out").write_text("an earlier output")
    real = predictor.Predictor.entities
    monkeypatch.setattr(
        predictor.Predictor, "entities", lambda self, texts: real(self, texts) if "A" in texts[0] else 1 / 0
    )
    pathlib.Path("long.txt").write_text("A dose.\n\n" + "\n\n".join(["a dose of patients"] * 500))
    with contextlib.redirect_stderr(io.StringIO()), pytest.raises(ZeroDivisionError):
        cli.main(["predict", f"--model={folders['ner']}", "--input", "long.txt", "--output=out", "--batch_size=1"])
    assert pathlib.Path("out").read_text() == "an earlier output"
    assert sorted(path.name for path in input_folder.iterdir() if "out" in path.name) == ["out"]


def test_control_characters_of_a_text_reach_a_file_but_not_a_terminal(folders, input_folder, monkeypatch):
    """PubTator output holds the text itself."""
    pathlib.Path("hostile.txt").write_text("A dose \x1b[2J of atenolol \x9b31m\n")
    arguments = ["predict", f"--model={folders['ner']}", "--input=hostile.txt", "--format=pubtator"]
    assert cli.main([*arguments, "--output=out.txt"]) == 0

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    assert cli.main(arguments) == 0
    shown = terminal.getvalue()
    assert "\x1b" not in shown and "\x9b" not in shown and r"\x1b[2J" in shown
    assert pathlib.Path("out.txt").read_text() == shown.replace(r"\x1b", "\x1b").replace(r"\x9b", "\x9b")
