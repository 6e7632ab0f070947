"""Models of each kind over HTTP, files in every format, and the command until SIGTERM."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import pathlib
import re
import signal
import subprocess
import sys
import zipfile

import jax
import pytest
import requests
import saved_run
from exported import exported
from try_page import running

from electramed_jax.commands import serve
from electramed_jax.config.pretrain import Config, DataConfig
from electramed_jax.data.synthetic import pubmed_xml
from electramed_jax.data.tokenizer import vocab
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.hf.format.mapping import NETWORKS
from electramed_jax.hf.pretrained.pair import PretrainedPair
from electramed_jax.pretrain.state import init_params
from electramed_jax.serve.services import make_service

pytestmark = pytest.mark.slow

TEXT = "A dose of atenolol\nby patients with acute arthritis."
INPUTS = {
    "ner": {"text": TEXT},
    "relations": {"text": "The dose of @DRUG$."},
    "multilabel": {"text": TEXT},
    "similarity": {"text": TEXT},
    "qa": {"question": "the drug", "context": TEXT},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    return {kind: exported(str(tmp_path_factory.mktemp(kind) / "tiny"), kind) for kind in INPUTS}


@pytest.fixture(scope="module")
def entities_url(folders):
    with running(make_service(serve.load(folders["ner"], None), folders["ner"])) as url:
        yield url


def answer_of(url: str, given: dict) -> dict:
    answer = requests.post(f"{url}/api/predict", json={"inputs": [given]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == "tiny", "the path of the folder is not shown"
    return answer.json()["results"][0]


@pytest.mark.parametrize("kind", [kind for kind in INPUTS if kind != "ner"])
def test_each_kind_of_model_answers_a_program_and_the_page(folders, kind):
    given = INPUTS[kind]
    with running(make_service(serve.load(folders[kind], None), folders[kind])) as url:
        result, page = answer_of(url, given), requests.post(url, data=given)
    assert page.status_code == 200 and "<h2>Result</h2>" in page.text
    if kind == "qa":
        assert result["candidates"] and all(
            TEXT[one["start"] : one["end"]] == one["text"] for one in result["candidates"]
        )
        assert result["answer"] in page.text
    elif kind == "similarity":
        assert f"{result['score']:.4f}" in page.text
    else:
        assert set(result["probabilities"]) == {"a", "b", "c"}
        assert all(f"{value:.4f}" in page.text for value in result["probabilities"].values())


def test_entities_are_at_their_characters(entities_url):
    found = answer_of(entities_url, {"text": f"  {TEXT}"})["entities"]
    assert found and all(f"  {TEXT}"[one["start"] : one["end"]] == one["text"] for one in found)


def upload(url: str, name: str, content: bytes, form: str) -> requests.Response:
    return requests.post(f"{url}/api/files", files={"file": (name, content)}, data={"format": form})


def test_an_uploaded_file_is_returned_in_each_format(entities_url, tmp_path):
    pubmed_xml.write_pubmed_xml(str(tmp_path / "xml"), articles=4, num_files=1)
    (path,) = (tmp_path / "xml").iterdir()
    outputs = {
        form: upload(entities_url, path.name, path.read_bytes(), form)
        for form in ("jsonl", "csv", "conll", "bioc", "pubtator", "brat", "html")
    }
    assert {answer.status_code for answer in outputs.values()} == {200}
    assert {answer.headers["X-Documents-Read"] for answer in outputs.values()} == {"4"}
    rows = [json.loads(line) for line in outputs["jsonl"].text.splitlines()]
    wanted = [(row["id"], one["start"], one["end"], one["type"]) for row in rows for one in row["entities"]]
    assert len(rows) == 4 and wanted
    table = csv.DictReader(io.StringIO(outputs["csv"].text))
    assert [(row["id"], int(row["start"]), int(row["end"]), row["type"]) for row in table] == wanted
    bioc = [(d["id"], p["annotations"]) for d in outputs["bioc"].json()["documents"] for p in d["passages"]]
    assert sum(len(annotations) for _, annotations in bioc) == len(wanted)
    assert len(re.findall(r"\tB-", outputs["conll"].text)) == len(wanted)
    assert outputs["html"].text.count("<mark") == len(wanted)
    with zipfile.ZipFile(io.BytesIO(outputs["brat"].content)) as archive:
        assert len(archive.namelist()) == 8
        notes = b"".join(archive.read(name) for name in archive.namelist() if name.endswith(".ann"))
        assert len(re.findall(rb"^T\d+\t", notes, re.MULTILINE)) == len(wanted)


@pytest.mark.parametrize(
    "name, content",
    [
        ("a.csv", b"pmid,abstract\n7,a dose of atenolol\n8,acute arthritis\n"),
        ("b.txt", b"a dose of atenolol\n\nacute arthritis\n"),
        ("c.jsonl", b'{"id": "7", "text": "a dose of atenolol"}\n{"id": "8", "text": "acute arthritis"}\n'),
        ("../../etc/passwd", b"a dose of atenolol\n\nacute arthritis\n"),
    ],
)
def test_files_are_recognized_by_their_content(entities_url, name, content):
    rows = [json.loads(line) for line in upload(entities_url, name, content, "jsonl").text.splitlines()]
    assert [row["text"] for row in rows] == ["a dose of atenolol", "acute arthritis"]


def test_a_file_that_cannot_be_read_is_refused_in_one_line(entities_url):
    for name, content, form in (("x.xml", b"\x00\xff\x00", "jsonl"), ("x.txt", b"a", "squad"), ("x.txt", b"", "jsonl")):
        answer = upload(entities_url, name, content, form)
        assert answer.status_code == 422, answer.text
        assert "electramed-serve" not in answer.json()["detail"] and "\n" not in answer.json()["detail"]


def random_pair() -> PretrainedPair:
    tokens = [*vocab.SPECIAL_TOKENS, "aspirin", "inhibits", "fever", "in", "the", "rat", ".", "##s"]
    tokenizer = Tokenizer.from_tokens(tokens, True)
    config = Config(
        model=dataclasses.replace(saved_run.MODEL, vocab_size=len(tokens), kernel_stddev=0.3),
        data=DataConfig(max_seq_length=32, special=tokenizer.special),
    )
    return PretrainedPair("random", NETWORKS, config, tokenizer, jax.device_get(init_params(config)))


def test_a_word_of_a_pretrained_pair_is_masked_by_selecting_it():
    text = "Aspirin inhibits fever in the rat."
    with running(make_service(random_pair(), "folder/random")) as url:
        page = requests.post(url, data={"text": text}).text
        assert 'value="17-22"' in page and re.search(r'title="replaced: \d+%"', page) and "Proposals" not in page
        page = requests.post(url, data={"text": text, "mask": "17-22"}).text
        assert "Proposals for “fever”, characters 17 to 22" in page
        assert requests.post(url, data={"text": text, "mask": "30-99"}).status_code == 422
        answer = requests.post(f"{url}/api/predict", json={"inputs": [{"text": "Aspirin [MASK] fever"}]}).json()
    (words,) = (result["words"] for result in answer["results"])
    assert [word["text"] for word in words] == ["Aspirin", "[MASK]", "fever"]
    assert [len(word["proposals"]) for word in words] == [0, 5, 0]
    assert all(0 < word["replaced_probability"] < 1 for word in words)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_a_signal_and_exits_with_0(folders, number):
    command = [sys.executable, "-m", "electramed_jax.cli", "serve", f"--model={folders['ner']}", "--port=0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        url = next(match[0] for line in process.stderr if (match := re.search(r"http://127\.0\.0\.1:\d+", line)))
        assert "mark" in requests.post(url, data={"text": TEXT}).text
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert json.loads(output)["requests"] == 1 and "stopped after 1 requests" in errors


def test_user_errors_of_the_command_are_one_line(folders, capsys, tmp_path):
    from electramed_jax import cli

    pathlib.Path(tmp_path / "empty").mkdir()
    for arguments, message in (
        (["--model=nowhere"], "nowhere: no such folder"),
        ([f"--model={tmp_path / 'empty'}"], "no config.json in it"),
        ([f"--model={folders['ner']}", "--host=203.0.113.7"], "choose another --port"),
        ([f"--model={folders['ner']}", "--token=a b"], "--token: wanted"),
        ([f"--model={folders['ner']}", "--max_pending=0"], "--max_pending=0: wanted 1 or more"),
    ):
        assert cli.main(["serve", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error
