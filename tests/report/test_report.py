"""The page about runs: complete by itself, and true to their files and checkpoints."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import shutil
import sys
import types

import invented_metrics
import jax
import pytest
import quick
import saved_run
from lxml import html

from electramed_jax import cli
from electramed_jax.aot import report
from electramed_jax.common.errors import UserError
from electramed_jax.config.pretrain import Config, MeshConfig, ModelConfig
from electramed_jax.data.dataset.loader import ordered_batches
from electramed_jax.pretrain.alerts import Alert
from electramed_jax.pretrain.checkpoint import load_pretrained_state
from electramed_jax.pretrain.step import eval_step
from electramed_jax.report import examples, figures, reference_curves
from electramed_jax.report import page as page_lib
from electramed_jax.report import run as run_lib
from electramed_jax.training import sharding


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", quick.jit)
        yield


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> str:
    return saved_run.pack(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def workdir(packed, tmp_path_factory) -> pathlib.Path:
    """A run with a checkpoint at step 3, invented metrics and two starts. To be copied before it is written to."""
    folder = tmp_path_factory.mktemp("runs") / "first <b>"
    saved_run.save(packed, folder, seed=5)
    invented_metrics.write(folder, fill_fraction=1.0)
    return folder


@pytest.fixture(scope="module")
def other(workdir, tmp_path_factory) -> pathlib.Path:
    """The same with batches twice as large, a low recall, and documents dropped."""
    folder = shutil.copytree(workdir, tmp_path_factory.mktemp("runs") / "second")
    invented_metrics.write(folder, fill_fraction=1.0, discriminator_recall=0.01)
    config = json.loads((folder / "config.json").read_text())
    config["batch_size"] *= 2
    config["total_steps"] = 3000
    config["optimizer"]["warmup_steps"] = 100
    (folder / "config.json").write_text(json.dumps(config))
    dataset = json.loads((folder / "dataset.json").read_text())
    dataset["dropped"] = {"too short": 7}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder


@pytest.fixture(scope="module")
def written(workdir, other, tmp_path_factory) -> pathlib.Path:
    """The folder of a report about both."""
    folder = tmp_path_factory.mktemp("report")
    assert cli.main(["report", str(workdir), str(other), f"--output={folder}", "--rows=2"]) == 0
    return folder


@pytest.fixture(scope="module")
def page(written) -> str:
    return (written / "report.html").read_text()


def text_of(page: str) -> str:
    return " ".join(html.fromstring(page).text_content().split())


def test_the_page_asks_for_nothing_outside_itself(page):
    document = html.fromstring(page)
    for element in document.iter():
        for name, value in element.attrib.items():
            if name.split(":")[-1] in ("src", "href", "action", "data", "poster"):
                assert value.startswith("#"), f"{element.tag} {name}={value}"
    assert not document.xpath("//script|//link|//iframe|//object")
    assert "@import" not in page and page.count("url(") == page.count("url(#")


def test_both_runs_are_told_of_side_by_side_and_a_name_is_never_markup(page):
    text = text_of(page)
    assert "first <b>" in text and "second" in text
    assert "<b>" not in page.replace("<b>Try</b>", "")
    assert "3,000 of 1,000,000" in text and "3,000 of 3,000" in text


def test_what_differs_between_the_runs_is_listed(page):
    table = next(t for t in html.fromstring(page).iter("table") if t[0].text_content().startswith("setting"))
    assert [row.text_content() for row in table[1]] == [
        "batch_size128256",
        "optimizer.warmup_steps10000100",
        "total_steps10000003000",
    ]


def test_starts_and_the_data_account_are_shown(page):
    text = text_of(page)
    assert "2026-01-02 03:04" in text and "8 × TPU v4, 2 processes" in text
    assert "too short" in text and "No document was dropped." in text


def test_a_run_without_alerts_says_so_and_no_checkpoint_is_opened_unless_asked(workdir, tmp_path):
    assert cli.main(["report", str(workdir), f"--output={tmp_path}", "--rows=0"]) == 0
    text = text_of((tmp_path / "report.html").read_text())
    assert "Nothing to report" in text and "validation split, masked" not in text
    assert "million tokens, padding included" not in text, "of runs with one batch size steps are compared"


def test_an_alert_is_shown_with_what_to_try(workdir, tmp_path, capsys):
    folder = shutil.copytree(workdir, tmp_path / "run")
    invented_metrics.write(folder, fill_fraction=0.1)
    assert cli.main(["report", str(folder), "--rows=0", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["report"] == f"{folder}/report/report.html", "the default"
    assert result["alerts"] == {str(folder): ["low_fill"]}
    assert "emptier than those that were packed" in text_of(pathlib.Path(result["report"]).read_text())


def test_every_figure_is_there_as_a_picture_too(written):
    pictures = sorted(path.name for path in written.glob("*.png"))
    assert {"loss.png", "discriminator_auc.png", "tokens_per_second.png", "document_lengths.png"} <= set(pictures)
    assert all((written / name).read_bytes().startswith(b"\x89PNG") for name in pictures)


def test_figures_follow_the_page_from_light_to_dark(page):
    svg = page[page.index("<svg") : page.index("</svg>")]
    assert "var(--run0)" in svg and "var(--muted)" in svg and "prefers-color-scheme:dark" in page


def test_runs_of_different_batches_are_compared_by_tokens(page):
    assert "million tokens, padding included" in page


# ---- sentences -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, tying", [("electra", "embeddings"), ("uniform", "embeddings"), ("mlm", "all")])
def test_sentences_are_what_an_evaluation_of_the_same_rows_counts(packed, tmp_path, kind, tying):
    config, _ = saved_run.save(packed, tmp_path / "run", kind, tying, seed=5)  # a discriminator that says both
    reached, rows = examples.of_checkpoint(str(tmp_path / "run"), 3)
    assert reached == 3
    mesh = sharding.make_mesh(MeshConfig(data=1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        state = load_pretrained_state(str(tmp_path / "run"), mesh)[1]
        read = functools.partial(ordered_batches, packed, "validation", 1, sharding.batch_sharding(mesh))
        ids = jax.numpy.concatenate([batch["input_ids"] for batch in read(3)])
        sums = jax.device_get(jax.jit(eval_step(config))(state.params, {"input_ids": ids}, 0))
    found = examples.counts(rows)
    assert found["tokens"] == sums["token_count"] and found["masked"] == sums["masked_count"]
    if kind == "mlm":
        return
    assert found["replaced"] == sums["replaced_sum"] > 0
    assert found["found"] == sums["found_replaced_sum"]
    assert found["found"] + found["false_alarms"] == sums["said_replaced_sum"] > 0


def test_sentences_show_what_was_written_drawn_and_said(page, workdir):
    _, rows = examples.of_checkpoint(str(workdir), 2)
    shown = html.fromstring(page).xpath("//p[@class='text']")
    assert len(shown) == 4, "two of each run"
    token = next(token for token in rows[0] if token.replaced)
    marked = shown[0].xpath(".//span[starts-with(@class, 'swap')]/s")[0].getparent()
    assert marked[0].text == token.original.removeprefix("##")
    assert marked.text_content() == token.original.removeprefix("##") + token.text.removeprefix("##")
    assert marked.get("title") == f"replaced: {token.replaced_probability:.0%}"
    called = token.replaced_probability > 0.5
    assert marked.get("class") == ("swap found" if called else "swap missed")


def test_without_the_dataset_or_a_checkpoint_the_rest_of_the_page_is_written(workdir, tmp_path, capsys):
    folder = shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints")
    assert cli.main(["report", str(folder)]) == 0
    assert "no sentences of" in capsys.readouterr().err
    text = text_of((folder / "report" / "report.html").read_text())
    assert "no complete checkpoint yet" in text and "Learning" in text
    with pytest.raises(UserError, match="no manifest.json"):
        examples.of_checkpoint(str(workdir), 1, data=str(tmp_path))


# ---- bands and mistakes ----------------------------------------------------------------------------------------------


def test_the_published_last_figures_lie_inside_the_band_of_their_size():
    small = reference_curves.for_config(Config(model=ModelConfig(vocab_size=31_090)))
    published = {"loss": 11.1, "generator_loss": 3.25, "discriminator_auc": 0.935, "generator_accuracy": 0.455}
    for metric, value in published.items():
        step_, low, high = small.bands[metric][-1]
        assert step_ == 1_000_000 and low <= value <= high, metric


def test_a_run_that_goes_on_from_trained_weights_is_held_to_no_fresh_run_s_band():
    config = Config(model=ModelConfig(vocab_size=31_090))
    assert reference_curves.for_config(dataclasses.replace(config, init="hf:models/small")) is None


def test_a_folder_that_is_no_workdir_or_named_twice_is_one_line(workdir, tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "not a training workdir" in capsys.readouterr().err
    assert cli.main(["report", str(workdir), f"{workdir}/"]) == 2
    assert "the same workdir twice" in capsys.readouterr().err


def test_without_matplotlib_the_extra_is_named(workdir, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'electramed_jax\[report\]'"):
        figures.bars("t", ["a"], {"x": [1]}, "y")


def test_two_workdirs_of_one_name_are_told_apart_by_their_folders(workdir, tmp_path):
    for parent in ("a", "b"):
        shutil.copytree(workdir, tmp_path / parent / "run")
    runs = run_lib.read_all([str(tmp_path / "a" / "run"), str(tmp_path / "b" / "run")])
    assert [run.name for run in runs] == ["a/run", "b/run"]


def test_what_a_file_says_is_text_and_never_markup(other, tmp_path):
    """A reason for dropping documents is a string of a file that somebody else may have written."""
    folder = shutil.copytree(other, tmp_path / "run")
    dataset = json.loads((folder / "dataset.json").read_text())
    dataset["dropped"] = {"<span onclick=x>": 1}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    assert cli.main(["report", str(folder), "--rows=0"]) == 0
    assert "&lt;span onclick=x&gt;" in (folder / "report" / "report.html").read_text()


def test_scores_of_fine_tuned_models_stand_on_the_page_of_the_run_they_came_from(workdir, tmp_path, capsys):
    finetuned = tmp_path / "ncbi"
    finetuned.mkdir()
    f1 = {"f1": {"mean": 87.123, "standard_deviation": 0.456}}
    found = {"task": "ner", "variant": "NCBI <disease>", "encoder": "runs/first", "primary": "f1", "seeds": [0, 1],
             "seeds_wanted": 5, "scores": {"dev": f1, "test": {"f1": {"mean": 85.0, "standard_deviation": 1.0}}},
             "published": [{"model": "ELECTRAMed", "metric": "f1", "value": 87.54, "source": "paper"}]}  # fmt: skip
    (finetuned / "results.json").write_text(json.dumps(found))
    assert cli.main(["report", str(workdir), str(finetuned), f"--output={tmp_path / 'out'}", "--rows=0"]) == 0
    text = text_of((tmp_path / "out" / "report.html").read_text())
    assert "ncbi f1 87.12 ± 0.46 85.00 ± 1.00 2 of 5 ner: NCBI <disease> runs/first ELECTRAMed 87.54 (f1)" in " ".join(
        cell.text_content() for cell in html.fromstring((tmp_path / "out" / "report.html").read_text()).iter("td")
    )
    assert "Downstream" in text
    assert cli.main(["report", str(finetuned)]) == 2
    assert "name that of the pre-training run first" in capsys.readouterr().err


def test_an_alert_raised_again_is_one_card_with_its_steps(workdir):
    (run,) = run_lib.read_all([str(workdir)])
    alerts = tuple(Alert("slow", step_, f"at {step_}", "slower", "waiting") for step_ in (100, 2000, 3000))
    text = text_of(page_lib.alerts([dataclasses.replace(run, alerts=alerts)]))
    assert "Step 100: at 100" in text and "Again at step 2,000, 3,000." in text and text.count("waiting") == 1


def test_what_the_compiler_said_stands_on_the_page_with_its_time_for_a_step(other, tmp_path):
    """By the names that `electramed compile --json` prints."""
    of = types.SimpleNamespace
    where = of(name="v5e:4x4", num_slices=1, devices=[None] * 16, chip=of(hbm_bytes=16 * 2**30))
    config = of(batch_size=256, data=of(row_length=512))
    program = of(flops=1.0, collectives={}, unknown_loops=[], cycles={})
    sizes = {"mesh": {}, "rows_per_chip": 16.0, "needed_bytes": 3 * 2**29, "whole_fraction": 0.0, "model_flops": 1.0}
    compiled = of(topology=where, config=config, fits=True, seconds=70.0, program=program, **sizes)
    estimate = of(seconds={}, by_bandwidth=0.0, step_seconds=0.131, utilization=0.2)
    folder = shutil.copytree(other, tmp_path / "run")
    (folder / "compile.json").write_text(json.dumps(report.to_json(compiled, estimate)))
    text = text_of(page_lib.compiled(run_lib.read_all([str(folder)])))
    assert "v5e:4x4, 16 chips" in text and "1.5 of 16.00 GiB" in text and "131 ms" in text
