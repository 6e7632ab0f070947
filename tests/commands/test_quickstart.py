"""The README's first line, small: every command runs, from XML to a model that is asked about swapped words."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from electramed_jax import cli
from electramed_jax.commands import quickstart
from electramed_jax.hf import detect


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """(folder, exit code, standard output, standard error) of a small quickstart."""
    folder = tmp_path_factory.mktemp("quickstart") / "out"
    with pytest.MonkeyPatch.context() as patch:
        said, results = [], []
        patch.setattr(
            "builtins.print", lambda *a, file=None, **k: (results if file is None else said).append(" ".join(a))
        )
        code = cli.main(["quickstart", f"--output={folder}", "--articles=300", "--steps=8", "--json"])
    return folder, code, "\n".join(results), "\n".join(said)


def test_it_ends_well_and_returns_one_line_of_json_last(ran):
    _, code, results, _ = ran
    assert code == 0
    result = json.loads(results.splitlines()[-1])
    assert result["swapped_words"] >= result["found_words"] >= 0 and result["swapped_words"] > 0


def test_it_prints_the_commands_it_runs_so_that_they_can_be_typed(ran):
    folder, _, _, said = ran
    typed = [shlex.split(line)[2:] for line in said.splitlines() if line.startswith("$ electramed ")]
    assert [command[0] for command in typed] == ["prepare", "vocab", "pack", "pretrain", "evaluate", "export"]
    assert typed == quickstart.commands(folder, 8)


def test_it_leaves_both_networks_for_hugging_face(ran):
    folder = ran[0]
    for network in ("discriminator", "generator"):
        names = {path.name for path in (folder / "models" / network).iterdir()}
        assert names == {
            "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
            "generator_loss.png", "discriminator_loss.png", "discriminator_auc.png",
        }  # fmt: skip


def test_started_again_it_does_nothing_twice(ran, capsys):
    folder = ran[0]
    assert cli.main(["quickstart", f"--output={folder}", "--articles=300", "--steps=8"]) == 0
    assert "nothing left to train" in capsys.readouterr().err


def test_the_discriminator_scores_every_word_of_a_text(ran):
    folder = ran[0]
    texts = ["The patients were treated.", "Fever"]
    verdicts = detect.predict_replaced(str(folder / "models" / "discriminator"), texts)
    assert [[word for word, _ in words] for words in verdicts] == [
        ["the", "patients", "were", "treated", "."],
        ["fever"],
    ]
    assert all(0 < probability < 1 for words in verdicts for _, probability in words)


def test_swapped_texts_differ_in_the_one_word_that_is_named():
    texts = [
        "The treatment of recurrent fever was tried.",
        "A randomised trial compared surgery with careful observation.",
    ]
    swaps = quickstart.swap_words(texts)
    assert len(swaps) == 2
    for swap, text in zip(swaps, texts, strict=True):
        assert swap.new not in text.lower() and swap.old in text.lower()
        assert re.sub(rf"\b{swap.new}\b", swap.old, swap.text) == text.lower()
