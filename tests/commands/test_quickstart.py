"""`electramed quickstart` on a small scale: every command runs, from XML to a model that marks replaced words."""

from __future__ import annotations

import json
import pathlib
import re
import shlex

import pytest
import safetensors.numpy
from lxml import html
from run_command import run_command

from electramed_jax import cli
from electramed_jax.commands import quickstart
from electramed_jax.data.corpus import corpus_dir
from electramed_jax.hf.pretrained import detect

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
    assert [command[0] for command in typed] == ["prepare", "vocab", "pack", "pretrain", "export", "report"]
    assert typed == quickstart.commands(folder, 8, with_report=True)


def test_it_writes_both_networks_as_hugging_face_folders(quickstart_run):
    folder = quickstart_run[0]
    for network in ("discriminator", "generator"):
        names = {path.name for path in (folder / "models" / network).iterdir()}
        assert names == {
            "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
            "generator_loss.png", "discriminator_loss.png", "discriminator_auc.png",
        }  # fmt: skip


def test_it_ends_with_a_page_a_report_and_commands_that_parse(quickstart_run):
    folder, _, _, messages = quickstart_run
    end = messages[messages.rindex("Done in ") :]
    for path in (folder / "replaced_words.html", folder / "run" / "report" / "report.html"):
        assert f"{path} " in end and path.read_text().startswith("<!doctype html>")
    page = html.fromstring((folder / "replaced_words.html").read_text())
    assert len(page.find_class("text")) > 3 and len(page.find_class("swap")) >= len(page.find_class("text"))
    typed = [shlex.split(line) for line in end.splitlines() if line.startswith("  electramed ")]
    assert [words[1] for words in typed] == ["prepare", "vocab", "pack", "pretrain"]
    for words in typed:
        cli.parse(words[1], words[2:])


def test_without_plotly_it_writes_no_report_and_names_what_to_install():
    out = pathlib.Path("q")
    assert [words[0] for words in quickstart.commands(out, 8, with_report=False)][-1] == "export"
    assert "pip install 'electramed_jax[report]' && electramed report q/run" in quickstart._next_lines(out, False)[-1]
    assert "report" not in "".join(quickstart._next_lines(out, True))


def test_the_first_example_is_one_that_was_found_and_the_second_one_that_was_missed(tmp_path, capsys, monkeypatch):
    texts = [f"the kinase number{n} binds receptors" for n in "abcd"]
    swaps = quickstart.swap_words(texts)

    def predict(folder, given):
        """Marks the replaced word in the third text alone, the first word in the others."""
        return [
            [
                (word, 0.9 if (word == swap.new if number == 2 else place == 0) else 0.1)
                for place, word in enumerate(text.split())
            ]
            for number, (text, swap) in enumerate(zip(given, swaps, strict=True))
        ]

    monkeypatch.setattr(detect, "predict_replaced", predict)
    monkeypatch.setattr(corpus_dir, "Texts", lambda *_: texts)
    assert quickstart._show_replaced_words(tmp_path) == {"swapped_words": 4, "found_words": 1}
    lines = [line.split()[0] for line in capsys.readouterr().err.splitlines() if line.startswith("  ")]
    assert lines == ["found", "missed"]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("xml/invented-0001.xml.gz", "input"), ("documents", "documents"), ("vocab.txt", "vocabulary"), ("packed", "packed"),
        ("run", "training"), ("run/checkpoints", "checkpoints"), ("run/checkpoints/8", "checkpoint"), ("models", "models"),
        ("models/discriminator", "models"),
    ],
)  # fmt: skip
def test_everything_that_it_wrote_can_be_inspected(quickstart_run, path, kind):
    assert run_command("inspect", quickstart_run[0] / path)["kind"] == kind


def test_inspect_counts_the_parameters_of_checkpoint_and_export(quickstart_run):
    """The checkpoint has both networks and shared embeddings; a Hugging Face folder has its own copy of them."""
    folder = quickstart_run[0]
    checkpoint = run_command("inspect", folder / "run" / "checkpoints" / "8")
    discriminator, generator = run_command("inspect", folder / "models")["models"]
    assert discriminator["class"] == "ElectraForPreTraining" and generator["class"] == "ElectraForMaskedLM"
    tensors = safetensors.numpy.load_file(folder / "models" / "discriminator" / "model.safetensors")
    assert discriminator["parameters"] == f"{sum(tensor.size for tensor in tensors.values()):,}"
    assert checkpoint["parameters"] > sum(tensor.size for tensor in tensors.values())


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
