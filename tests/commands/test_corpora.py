"""`electramed corpora`: the list, a description, and prepared files."""

from __future__ import annotations

import contextlib
import io
import json

from invented_corpora import SOURCES

from electramed_jax import cli
from electramed_jax.finetune.corpora import registry


def corpora(*arguments: str) -> tuple[int, dict]:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        code = cli.main(["corpora", *arguments, "--json"])
    return code, json.loads(output.getvalue() or "{}")


def test_the_list_has_every_corpus_with_its_home_and_licence():
    code, result = corpora()
    assert code == 0 and result["corpora"].keys() == registry.CORPORA.keys()
    for corpus in result["corpora"].values():
        assert all(corpus[name] for name in ("home", "licence", "files", "splits", "measure", "settings_source"))
        assert bool(corpus["counts"]) == bool(corpus["counts_source"])


def test_a_corpus_is_described():
    code, result = corpora("show", "ncbi-disease")
    assert code == 0 and result["counts"]["test"]["entities"] == 960


def test_a_corpus_is_prepared(tmp_path):
    source = SOURCES["hoc"](tmp_path / "source")
    code, result = corpora("prepare", "hoc", f"--source={source}", f"--output={tmp_path / 'out'}")
    assert code == 0 and sum(counts["rows"] for counts in result["counts"].values()) == 30
    assert json.loads((tmp_path / "out" / "corpus.json").read_text())["corpus"] == "hoc"


def test_what_is_missing_is_said_in_one_line(capsys):
    for arguments, message in (
        (["prepare"], "prepare needs the name of a corpus"),
        (["prepare", "hoc"], "add --source FOLDER"),
        (["show", "hocc"], "hocc: no such corpus; did you mean hoc?"),
    ):
        assert cli.main(["corpora", *arguments]) == 2
        assert message in capsys.readouterr().err
