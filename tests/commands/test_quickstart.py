"""`electramed quickstart` on a small scale: every command runs, from XML to a model that marks replaced words."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from electramed_jax import cli
from electramed_jax.commands import quickstart
from electramed_jax.hf import detect

pytestmark = pytest.mark.slow  # each test needs a trained run


@pytest.fixture(scope="module")
def quickstart_run(tmp_path_factory):
    """(folder, exit code, standard output, standard error) of a small quickstart."""
    folder = tmp_path_factory.mktemp("quickstart") / "out"
    with pytest.MonkeyPatch.context() as patch:
        messages, results = [], []
        patch.setattr(
            "builtins.print", lambda *a, file=None, **k: (results if file is None else messages).append(" ".join(a))
        )
        code = cli.main(["quickstart", f"--output={folder}", "--articles=300", "--steps=8", "--json"])
    return folder, code, "\n".join(results), "\n".join(messages)


def test_it_exits_with_0_and_prints_one_line_of_json_last(quickstart_run):
    _, code, results, _ = quickstart_run
    assert code == 0
    result = json.loads(results.splitlines()[-1])
    assert result["swapped_words"] >= result["found_words"] >= 0 and result["swapped_words"] > 0


def test_it_prints_the_commands_that_it_runs(quickstart_run):
    folder, _, _, messages = quickstart_run
    typed = [shlex.split(line)[2:] for line in messages.splitlines() if line.startswith("$ electramed ")]
    assert [command[0] for command in typed] == ["prepare", "vocab", "pack", "pretrain", "evaluate", "export"]
    assert typed == quickstart.commands(folder, 8)


def test_it_writes_both_networks_as_hugging_face_folders(quickstart_run):
    folder = quickstart_run[0]
    for network in ("discriminator", "generator"):
        names = {path.name for path in (folder / "models" / network).iterdir()}
        assert names == {
            "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
            "generator_loss.png", "discriminator_loss.png", "discriminator_auc.png",
        }  # fmt: skip


def test_a_second_run_does_not_train_again(quickstart_run, capsys):
    folder = quickstart_run[0]
    assert cli.main(["quickstart", f"--output={folder}", "--articles=300", "--steps=8"]) == 0
    assert "is already trained; nothing to do" in capsys.readouterr().err


def test_the_discriminator_scores_every_word_of_a_text(quickstart_run):
    folder = quickstart_run[0]
    texts = ["The patients were treated.", "Fever"]
    predictions = detect.predict_replaced(str(folder / "models" / "discriminator"), texts)
    assert [[word for word, _ in words] for words in predictions] == [
        ["the", "patients", "were", "treated", "."],
        ["fever"],
    ]
    assert all(0 < probability < 1 for words in predictions for _, probability in words)


def test_swapped_texts_differ_in_one_word():
    texts = [
        "The treatment of recurrent fever was tried.",
        "A randomised trial compared surgery with careful observation.",
    ]
    swaps = quickstart.swap_words(texts)
    assert len(swaps) == 2
    for swap, text in zip(swaps, texts, strict=True):
        assert swap.new not in text.lower() and swap.old in text.lower()
        assert re.sub(rf"\b{swap.new}\b", swap.old, swap.text) == text.lower()
