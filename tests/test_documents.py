"""The Markdown files: every command, setting and path in them exists."""

from __future__ import annotations

import pathlib
import re
import shlex

import pytest

from electramed_jax import cli
from electramed_jax.config import finetune as finetuning
from electramed_jax.config import pretrain as pretraining

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


def test_the_recipes_contain_every_main_command():
    """Guards `commands`: without matches the tests above would pass on nothing."""
    names = [words[0] for words in commands("configs/README.md")]
    assert {"prepare", "vocab", "pack", "pretrain", "report", "export", "finetune", "import"} <= set(names)
