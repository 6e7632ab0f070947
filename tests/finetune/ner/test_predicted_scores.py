"""`predict` and Hugging Face's pipeline find in the text of a test set what scores.json counts."""

from __future__ import annotations

import json
import pathlib
import random
import shutil

import pytest
from invented_corpus import OTHER, TOKENS, tiny_init_encoder

from electramed_jax import cli
from electramed_jax.config.finetune import FinetuneConfig, FinetuneOptimizerConfig, NerConfig, TaskConfig
from electramed_jax.finetune import make_task, run
from electramed_jax.finetune.ner import conll
from electramed_jax.finetune.predictor import Predictor, load_model

pytestmark = pytest.mark.slow

LETTERS = ("il", "cd", "nf", "kappa", "b", "4", "2", "-", "/", "(", ")", ",", ".", "'")
PROTEINS = ("IL-2", "CD4", "NF-kappa B", "IL-2/CD-4", "CD-2-IL-4", "4'-IL")
Found = set[tuple[int, int, int, str]]  # sentence, first character, the one after the last, type


def sentences(count: int, seed: int) -> str:
    """Returns CoNLL text in which a third of the words of entities has punctuation inside, as in JNLPBA."""
    draw, lines = random.Random(seed), []
    for _ in range(count):
        for _ in range(draw.randrange(2, 7)):
            if draw.random() < 0.4:
                first, *others = draw.choice(PROTEINS).split()
                lines += [f"{first} B-Protein", *(f"{word} I-Protein" for word in others)]
            else:
                lines.append(f"{draw.choice([*OTHER, '(', ')', 'dose-by', 'the/4'])} O")
        lines += [". O", ""]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("corpus")
    for seed, (split, count) in enumerate({"train": 80, "dev": 30, "test": 60}.items()):
        (folder / f"{split}.txt").write_text(sentences(count, seed))
    return folder


def finetune(corpus: pathlib.Path, workdir: pathlib.Path, words: str) -> pathlib.Path:
    tokens = (*TOKENS, *LETTERS, *(f"##{letter}" for letter in LETTERS))
    encoder = tiny_init_encoder(tokens, embedding_size=16, hidden_size=32, max_positions=64)
    config = FinetuneConfig(
        task=TaskConfig(data=str(corpus), max_seq_length=64),
        ner=NerConfig(words=words),
        optimizer=FinetuneOptimizerConfig(learning_rate=0.003, layerwise_lr_decay=1.0),
        init="scratch",
        batch_size=8,
        epochs=4.0,
    )
    task, encoder, spec = make_task.make_task(config, encoder)
    run.run_finetuning(config, task, encoder, spec, str(workdir))
    return workdir


@pytest.fixture(scope="module")
def workdir(corpus, tmp_path_factory) -> pathlib.Path:
    return finetune(corpus, tmp_path_factory.mktemp("punctuation") / "run", "punctuation")


def text_f1(found: Found, corpus: pathlib.Path) -> float:
    """Returns the F1 of entities by character, counted here anew."""
    gold = {
        (number, *span)
        for number, one in enumerate(conll.read_sentences(str(corpus / "test.txt")))
        for span in one.spans
    }
    return 200 * len(found & gold) / (len(found) + len(gold))


def texts_of(corpus: pathlib.Path) -> list[str]:
    return [sentence.text for sentence in conll.read_sentences(str(corpus / "test.txt"))]


def predicted(folder: pathlib.Path, texts: list[str]) -> Found:
    entities = Predictor(load_model(str(folder), None), batch_rows=8).entities(texts)
    return {(number, *one[:3]) for number, found in enumerate(entities) for one in found}


def scores_of(workdir: pathlib.Path) -> dict[str, float]:
    return json.loads((workdir / "seed-0" / "scores.json").read_text())["test"]


def test_predict_finds_exactly_what_was_scored(corpus, workdir):
    scores, found = scores_of(workdir), predicted(workdir, texts_of(corpus))
    assert 20 < scores["text_f1"] < 99, "neither a perfect model nor a useless one"
    assert text_f1(found, corpus) == pytest.approx(scores["text_f1"])
    assert scores["f1"] >= scores["text_f1"], "an entity that is cut inside a word is only correct by words"


def test_spaces_around_punctuation_do_not_change_what_is_found(corpus, workdir):
    spaced = texts_of(corpus)
    glued = [text.replace("( ", "(").replace(" )", ")").replace(" .", ".") for text in spaced]
    assert glued != spaced
    for one, other in zip(predicted_texts(workdir, spaced), predicted_texts(workdir, glued), strict=True):
        assert [text.replace(" ", "") for text in one] == [text.replace(" ", "") for text in other]


def predicted_texts(folder: pathlib.Path, texts: list[str]) -> list[list[str]]:
    entities = Predictor(load_model(str(folder), None), batch_rows=8).entities(texts)
    return [[text[one.start : one.stop] for one in found] for text, found in zip(texts, entities, strict=True)]


def test_the_exported_folder_and_the_pipeline_of_transformers_find_the_same(corpus, workdir, tmp_path):
    pytest.importorskip("torch", reason="transformers needs torch: install electramed_jax[parity]")
    transformers = pytest.importorskip("transformers", reason="install electramed_jax[parity]")
    folder = tmp_path / "model"
    assert cli.main(["export", f"--workdir={workdir}", f"--output={folder}", "--quiet"]) == 0
    texts, scored = texts_of(corpus), scores_of(workdir)["text_f1"]
    assert text_f1(predicted(folder, texts), corpus) == pytest.approx(scored)
    pipeline = transformers.pipeline("token-classification", model=str(folder), aggregation_strategy="first")
    found = {
        (number, one["start"], one["end"], one["entity_group"])
        for number, text in enumerate(texts)
        for one in pipeline(text)
    }
    assert text_f1(found, corpus) == pytest.approx(scored)


def test_the_words_of_training_are_recorded_with_the_model(workdir, tmp_path):
    assert json.loads((workdir / "task.json").read_text())["words"] == "punctuation"
    assert load_model(str(workdir), None).postprocess.words == "punctuation"
    folder = tmp_path / "model"
    assert cli.main(["export", f"--workdir={workdir}", f"--output={folder}", "--quiet"]) == 0
    assert json.loads((folder / "config.json").read_text())["electramed"]["words"] == "punctuation"
    assert load_model(str(folder), None).postprocess.words == "punctuation"


def test_a_model_of_the_words_of_the_file_is_scored_on_the_text_too(corpus, workdir, tmp_path, capsys):
    """Its score by words does not hold for a text. The score by characters does, and it is lower."""
    of_file = finetune(corpus, tmp_path / "run", "file")
    scores = scores_of(of_file)
    assert text_f1(predicted(of_file, texts_of(corpus)), corpus) == pytest.approx(scores["text_f1"])
    assert scores["text_f1"] < scores["f1"] - 5
    assert scores["text_f1"] < scores_of(workdir)["text_f1"]
    command = ["predict", "--text", "IL-2 by CD4", f"--output={tmp_path / 'out.jsonl'}"]
    for folder, is_noted in ((of_file, True), (workdir, False)):
        assert cli.main([*command, f"--model={folder}"]) == 0
        assert ("text_f1 in results.json" in capsys.readouterr().err) == is_noted


def test_a_model_without_the_record_predicts_as_before(corpus, workdir, tmp_path):
    earlier = tmp_path / "run"
    shutil.copytree(workdir, earlier)
    values = json.loads((earlier / "task.json").read_text())
    assert values.pop("words") == "punctuation"
    (earlier / "task.json").write_text(json.dumps(values))
    assert predicted(earlier, texts_of(corpus)) == predicted(workdir, texts_of(corpus))
