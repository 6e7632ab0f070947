"""The Markdown files: every command, setting and path in them exists."""

from __future__ import annotations

import ast
import functools
import pathlib
import re
import shlex

import pytest
import yaml

import electramed_jax
from electramed_jax import cli
from electramed_jax.config import finetune as finetuning
from electramed_jax.config import pretrain as pretraining
from electramed_jax.data.synthetic import pubmed_xml
from electramed_jax.finetune.ner import corpus_files
from electramed_jax.hf import card

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = ("electramed_jax", "configs", "launch", "tests")
DOCUMENTS = [
    "README.md",
    ".github/CONTRIBUTING.md",
    "electramed_jax/CHANGELOG.md",
    *sorted(str(p.relative_to(ROOT)) for p in (ROOT / ".docs").glob("*.md")),
    *sorted(str(p.relative_to(ROOT)) for f in FOLDERS for p in (ROOT / f).rglob("README.md")),
]
LINK = re.compile(r"\]\((?!https?:)([^)#]+)[^)]*\)")
PATH = re.compile(r"`((?:configs|launch|tests|electramed_jax)/[\w/.-]+)`")
PLACEHOLDERS = {"...", "DIR", "PATH", "WORKDIR…"}


def commands(document: str) -> list[list[str]]:
    """Returns the words of each `electramed` command in the indented blocks, also of those passed to a launcher."""
    text = (ROOT / document).read_text().replace("\\\n", " ")
    results = []
    for line in re.findall(r"^    (.+)$", text, re.MULTILINE):
        for part in re.split(r"&&|;", line):
            if match := re.search(r"(?:\belectramed|\bbabysit|(?:tpu_vm|gke|processes|slurm)\S* (?:run)?) +(.*)", part):
                words = shlex.split(match[1], comments=True)
                if words and words[0] in cli.COMMANDS and not PLACEHOLDERS.intersection(words):
                    results.append(words)
    return results


@pytest.mark.parametrize(
    ("document", "words"),
    [pytest.param(d, words, id=f"{d}: {' '.join(words)[:60]}") for d in DOCUMENTS for words in commands(d)],
)
def test_every_command_in_a_document_has_flags_and_settings_that_exist(document, words, monkeypatch):
    monkeypatch.chdir(ROOT)
    command, args = cli.parse(words[0], words[1:])
    written_by_import = "--config=adapted.py"
    if any(word.startswith("--config=") and word != written_by_import for word in args.settings):
        read = finetuning.from_flags if command.TAKES_CONFIG == "finetune" else pretraining.from_flags
        read(args.settings)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_in_a_document_exists(document):
    text = (ROOT / document).read_text()
    links = [(ROOT / document).parent / link for link in LINK.findall(text)]
    missing = [str(path) for path in [*links, *(ROOT / path for path in PATH.findall(text))] if not path.exists()]
    assert not missing


def test_the_tutorials_contain_every_main_command():
    """Guards `commands`: without matches the tests above would pass on nothing."""
    names = {
        words[0] for path in sorted((ROOT / ".docs").glob("tutorial_*.md")) for words in commands(f".docs/{path.name}")
    }
    assert {
        "download", "prepare", "vocab", "pack", "pretrain", "report", "evaluate", "export", "import", "compile",
        "corpora", "finetune", "sweep", "compare", "errors", "predict", "serve",
    } <= names  # fmt: skip


@pytest.mark.slow
def test_the_commands_for_text_of_the_tutorial_run_as_they_are_printed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pubmed_xml.write_pubmed_xml("mine", articles=300)
    run = []
    for words in commands(".docs/tutorial_own_field.md"):
        needs_a_download = any("models/general" in word or word.endswith("-extended.txt") for word in words)
        if words[0] in ("prepare", "inspect", "vocab", "pack") and not needs_a_download:
            assert cli.main(words) == 0, words
            run.append(words[0])
    assert run == ["prepare", "prepare", "inspect", "vocab", "pack"]
    assert (tmp_path / "packed-small" / "manifest.json").exists()


def test_the_annotations_in_the_tutorial_are_read_as_it_describes(tmp_path):
    text = (ROOT / ".docs" / "tutorial_own_annotation.md").read_text()
    conll, brat = re.findall(r"^```text\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    (tmp_path / "train.txt").write_text(conll)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "1.ann").write_text(brat)
    (tmp_path / "train" / "1.txt").write_text("Nivolumab was given for renal cell carcinoma.\n")
    (words,) = corpus_files.read_sentences(str(tmp_path / "train.txt"))
    (characters,) = corpus_files.read_sentences(str(tmp_path / "train"))
    assert words.words == tuple("Nivolumab was given for renal cell carcinoma .".split())
    assert [words.tags[0], *words.tags[4:7]] == ["B-Drug", "B-Disease", "I-Disease", "I-Disease"]
    assert characters.standoff is not None
    standoff = characters.standoff
    assert [(span.type, standoff.text[span.start : span.stop]) for span in standoff.spans] == [
        ("Drug", "Nivolumab"),
        ("Disease", "renal cell carcinoma"),
    ]


@functools.cache
def messages() -> list[str]:
    """Returns the strings in the code; a value in an f-string is NUL."""
    found = []
    for path in (ROOT / "electramed_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


QUOTED = re.findall(r"^###.*?`(.+?)`", (ROOT / ".docs" / "troubleshooting.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("quoted", QUOTED)
def test_a_message_in_the_troubleshooting_is_one_that_the_program_prints(quoted):
    parts = [part.strip() for part in quoted.split("...") if part.strip()]
    assert parts
    assert any(all(part in message for part in parts) for message in messages())


def test_the_papers_are_cited_as_on_model_cards_and_the_software_in_its_version():
    assert card.CITATION in (ROOT / "README.md").read_text()
    citation = yaml.safe_load((ROOT / ".github" / "CITATION.cff").read_text())
    assert citation["version"] == electramed_jax.__version__
    assert [one["title"] for one in citation["references"]] == re.findall(r" title *= {(.+)}", card.CITATION)
