"""The report is self-contained and agrees with the files and checkpoints of its runs."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
import pathlib
import re
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
from electramed_jax.data.dataset.dataset import open_dataset
from electramed_jax.data.dataset.loader import ordered_batches
from electramed_jax.pretrain.alerts import Alert
from electramed_jax.pretrain.checkpoint import load_pretrained_state
from electramed_jax.pretrain.step import eval_step
from electramed_jax.report import curves, examples, examples_html, pictures, reference_curves
from electramed_jax.report import page as page_lib
from electramed_jax.report import run as run_lib
from electramed_jax.training import sharding

pytestmark = pytest.mark.slow  # each test needs a trained run


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
    """A run with a checkpoint at step 3, synthetic metrics and two starts. Tests copy it before they write to it."""
    folder = tmp_path_factory.mktemp("runs") / "first <b>"
    saved_run.save(packed, folder, seed=5)
    invented_metrics.write(folder, fill_fraction=1.0)
    return folder


@pytest.fixture(scope="module")
def other(workdir, tmp_path_factory) -> pathlib.Path:
    """Returns a run with a doubled batch size, a low recall and dropped documents."""
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
    """The folder of a report about both runs."""
    folder = tmp_path_factory.mktemp("report")
    assert cli.main(["report", str(workdir), str(other), f"--output={folder}", "--rows=2"]) == 0
    return folder


def read_page(folder: pathlib.Path) -> str:
    """Returns the page of a folder without its scripts: the values of the curves, plotly.js, curves.js, errors.js."""
    parts = re.split(r"<script.*?</script>", (folder / "report.html").read_text(), flags=re.DOTALL)
    assert len(parts) == 5
    return "".join(parts)


@pytest.fixture(scope="module")
def page(written) -> str:
    return read_page(written)


def text_of(page: str) -> str:
    return " ".join(html.fromstring(page).text_content().split())


def test_the_page_loads_nothing_from_elsewhere(page):
    document = html.fromstring(page)
    for element in document.iter():
        for name, value in element.attrib.items():
            if name.split(":")[-1] in ("src", "href", "action", "data", "poster"):
                assert value.startswith("#"), f"{element.tag} {name}={value}"
    assert not document.xpath("//script|//link|//iframe|//object")
    assert "@import" not in page and "url(" not in page


def test_the_policy_allows_the_scripts_of_the_page_by_their_hash_and_no_other(written):
    document = html.fromstring((written / "report.html").read_text())
    policy = document.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")[0]
    scripts = [element for element in document.iter("script") if "type" not in element.attrib]
    digests = [base64.b64encode(hashlib.sha256(one.text.encode()).digest()).decode() for one in scripts]
    assert policy.partition("script-src ")[2] == " ".join(f"'sha256-{digest}'" for digest in digests)
    assert len(digests) == 3 and "default-src 'none'" in policy


def test_both_runs_are_shown_and_their_names_are_escaped(page):
    text = text_of(page)
    assert "first <b>" in text and "second" in text
    assert "<b>" not in page.replace("<b>Try</b>", "")
    assert "3,000 of 1,000,000" in text and "3,000 of 3,000" in text


def test_settings_that_differ_between_the_runs_are_listed(page):
    table = next(t for t in html.fromstring(page).iter("table") if t[0].text_content().startswith("setting"))
    assert [row.text_content() for row in table[1]] == [
        "batch_size128256",
        "optimizer.warmup_steps10000100",
        "total_steps10000003000",
    ]


def test_starts_and_dropped_documents_are_shown(page):
    text = text_of(page)
    assert "2026-01-02 03:04" in text and "8 × TPU v4, 2 processes" in text
    assert "too short" in text and "No document was dropped." in text


def test_a_run_without_alerts_is_reported_and_rows_0_opens_no_checkpoint(workdir, tmp_path):
    assert cli.main(["report", str(workdir), f"--output={tmp_path}", "--rows=0"]) == 0
    text = text_of(read_page(tmp_path))
    assert "Too short to judge." in text and "Networks should have learned after step 50,000" in text
    assert "better than without learning: discriminator_auc 0.730 (0.500 is chance)" in text.lower()
    assert "No alert." not in text and "Validation rows with the masks" not in text
    chosen = html.fromstring(read_page(tmp_path)).xpath("//select[@name='x']/option[@selected]/@value")
    assert chosen == ["step"], "runs with one batch size are compared by steps"


def test_an_alert_is_shown_with_its_suggestion(workdir, tmp_path, capsys):
    folder = shutil.copytree(workdir, tmp_path / "run")
    invented_metrics.write(folder, fill_fraction=0.1)
    assert cli.main(["report", str(folder), "--rows=0", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["report"] == f"{folder}/report/report.html", "the default"
    assert result["alerts"] == {str(folder): ["low_fill"]}
    assert "hold more padding than the packed rows" in text_of(read_page(pathlib.Path(result["report"]).parent))


def test_runs_with_different_batch_sizes_are_compared_by_tokens(page):
    assert html.fromstring(page).xpath("//select[@name='x']/option[@selected]/@value") == ["tokens"]


# ---- examples -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind, tying", [("electra", "embeddings"), ("uniform", "embeddings"), ("mlm", "all")])
def test_example_rows_agree_with_the_sums_of_an_evaluation(packed, tmp_path, kind, tying):
    # With this seed the discriminator predicts both classes.
    config, _ = saved_run.save(packed, tmp_path / "run", kind, tying, seed=5)
    reached, rows = examples.predict_rows(str(tmp_path / "run"), 3)
    assert reached == 3
    mesh = sharding.make_mesh(MeshConfig(data=1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        state = load_pretrained_state(str(tmp_path / "run"), mesh)[1]
        read = functools.partial(ordered_batches, open_dataset(packed), "validation", 1, sharding.batch_sharding(mesh))
        ids = jax.numpy.concatenate([batch["input_ids"] for batch in read(3)])
        sums = jax.device_get(jax.jit(eval_step(config))(state.params, {"input_ids": ids}, 0))
    counts = examples.count_tokens(rows)
    assert counts["tokens"] == sums["token_count"] and counts["masked"] == sums["masked_count"]
    if kind == "mlm":
        return
    assert counts["replaced"] == sums["replaced_sum"] > 0
    assert counts["found"] == sums["found_replaced_sum"]
    assert counts["found"] + counts["false_alarms"] == sums["said_replaced_sum"] > 0


def test_example_rows_show_original_sample_and_prediction(page, workdir):
    _, rows = examples.predict_rows(str(workdir), 2)
    shown = html.fromstring(page).xpath("//p[@class='text']")
    assert len(shown) == 4, "two rows per run"
    token = next(token for token in rows[0] if token.replaced)
    marked = shown[0].xpath(".//span[starts-with(@class, 'swap')]/s")[0].getparent()
    assert marked[0].text == token.original.removeprefix("##")
    assert marked.text_content() == token.original.removeprefix("##") + token.text.removeprefix("##")
    assert marked.get("title") == f"replaced: {token.replaced_probability:.0%}"
    detected = token.replaced_probability > 0.5
    assert marked.get("class") == ("swap found" if detected else "swap missed")


def test_without_the_dataset_or_a_checkpoint_the_page_has_no_example_rows(workdir, tmp_path, capsys):
    folder = shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints")
    assert cli.main(["report", str(folder)]) == 0
    assert "no example rows of" in capsys.readouterr().err
    text = text_of(read_page(folder / "report"))
    assert "no complete checkpoint yet" in text and "Learning" in text
    with pytest.raises(UserError, match="no manifest.json"):
        examples.predict_rows(str(workdir), 1, data=str(tmp_path))


# ---- reference bands and errors ----------------------------------------------------------------------------------------------


def test_the_published_final_metrics_are_inside_the_band_of_their_model_size():
    small = reference_curves.reference_for(Config(model=ModelConfig(vocab_size=31_090)))
    published = {"loss": 11.1, "generator_loss": 3.25, "discriminator_auc": 0.935, "generator_accuracy": 0.455}
    for metric, value in published.items():
        step_, low, high = small.bands[metric][-1]
        assert step_ == 1_000_000 and low <= value <= high, metric


def test_a_run_from_trained_weights_has_no_reference_band():
    config = Config(model=ModelConfig(vocab_size=31_090))
    assert reference_curves.reference_for(dataclasses.replace(config, init="hf:models/small")) is None


def test_a_folder_that_is_no_workdir_or_given_twice_is_a_user_error(workdir, tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "not a training workdir" in capsys.readouterr().err
    assert cli.main(["report", str(workdir), f"{workdir}/"]) == 2
    assert "the same workdir twice" in capsys.readouterr().err


def test_the_error_without_plotly_or_matplotlib_names_the_extra_to_install(workdir, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'electramed_jax\[report\]'"):
        pictures.learning_curves(str(workdir), 3000)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(UserError, match=r"pip install 'electramed_jax\[report\]'"):
        curves._scripts.__wrapped__()


def test_two_workdirs_of_one_name_are_distinguished_by_their_folders(workdir, tmp_path):
    for parent in ("a", "b"):
        shutil.copytree(workdir, tmp_path / parent / "run")
    runs = run_lib.read_runs([str(tmp_path / "a" / "run"), str(tmp_path / "b" / "run")])
    assert [run.name for run in runs] == ["a/run", "b/run"]


def test_text_from_files_is_escaped(other, tmp_path):
    """The reasons for dropped documents are strings of a file that may come from another user."""
    folder = shutil.copytree(other, tmp_path / "run")
    dataset = json.loads((folder / "dataset.json").read_text())
    dataset["dropped"] = {"<span onclick=x>": 1}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    assert cli.main(["report", str(folder), "--rows=0"]) == 0
    assert "&lt;span onclick=x&gt;" in read_page(folder / "report")


def test_fine_tuning_scores_are_shown_with_the_pre_training_run(workdir, tmp_path, capsys):
    finetuned = tmp_path / "ncbi"
    finetuned.mkdir()
    f1 = {"f1": {"mean": 87.123, "standard_deviation": 0.456}}
    results = {"task": "ner", "variant": "NCBI <disease>", "encoder": "runs/first", "primary": "f1", "seeds": [0, 1],
             "seeds_wanted": 5, "scores": {"dev": f1, "test": {"f1": {"mean": 85.0, "standard_deviation": 1.0}}},
             "published": [{"model": "ELECTRAMed", "metric": "f1", "value": 87.54, "source": "paper"}],
             "runs": [{"seed": 0, "best_step": 9, "best_epoch": 1.0, "dev": {"f1": 87.1}, "test": {"f1": 85.0},
                       "history": [{"step": 9, "epoch": 1.0, "f1": 87.1}]}],
             "data": {"files": {}, "sizes": {"dev": {}, "test": {}}}, "config": {}, "code": "test"}  # fmt: skip
    (finetuned / "results.json").write_text(json.dumps(results))
    assert cli.main(["report", str(workdir), str(finetuned), f"--output={tmp_path / 'out'}", "--rows=0"]) == 0
    text = text_of(read_page(tmp_path / "out"))
    assert "ncbi f1 87.12 ± 0.46 85.00 ± 1.00 2 of 5 ner: NCBI <disease> runs/first ELECTRAMed 87.54 (f1)" in " ".join(
        cell.text_content() for cell in html.fromstring(read_page(tmp_path / "out")).iter("td")
    )
    assert "Downstream" in text


def test_fine_tuning_runs_alone_are_shown_with_a_curve_for_each_seed_and_a_table_of_classes(tmp_path, capsys):
    finetuned = tmp_path / "chemprot"
    finetuned.mkdir()
    names = ("f1", "precision/CPR:3", "recall/CPR:3", "f1/CPR:3")
    scores = {name: {"mean": 80.0 + number, "standard_deviation": 0.5} for number, name in enumerate(names)}
    curve = [{"step": 10 * n, "epoch": float(n), "f1": 60.0 + 9 * n} for n in (1, 2)]
    runs = [
        {"seed": seed, "best_step": 20, "best_epoch": 2.0, "dev": {"f1": 78.0}, "history": curve} for seed in (3, 4)
    ]
    results = {"task": "relations", "variant": "ChemProt", "encoder": "runs/first", "primary": "f1", "seeds": [3, 4],
             "seeds_wanted": 2, "scores": {"dev": scores}, "published": [], "runs": runs,
             "data": {"files": {}, "sizes": {"dev": {}}}, "config": {}, "code": "test"}  # fmt: skip
    (finetuned / "results.json").write_text(json.dumps(results))
    assert cli.main(["report", str(finetuned)]) == 0
    page = (finetuned / "report" / "report.html").read_text()
    values = json.loads(html.fromstring(page).xpath("//script[@id='curve-values']")[0].text)
    ((_, drawn),) = values.items()
    assert [(one["name"], one["x"]["step"], one["y"]) for one in drawn["curves"]] == [
        (f"seed {seed}", [10, 20], [69.0, 78.0]) for seed in (3, 4)
    ]
    cells = " ".join(cell.text_content() for cell in html.fromstring(page).iter("td"))
    assert "CPR:3 81.00 82.00 83.00" in cells and "chemprot f1 80.00 ± 0.50" in cells


def test_an_alert_raised_again_is_one_card_with_all_its_steps(workdir):
    (run,) = run_lib.read_runs([str(workdir)])
    alerts = tuple(Alert("slow", step_, f"at {step_}", "slower", "waiting") for step_ in (100, 2000, 3000))
    text = text_of(page_lib.alerts_section([dataclasses.replace(run, alerts=alerts)]))
    assert "Step 100: at 100" in text and "Again at step 2,000, 3,000." in text and text.count("waiting") == 1


def test_the_result_of_the_compiler_is_shown_with_its_step_time(other, tmp_path):
    """Reads the keys that `electramed compile --json` prints."""
    namespace = types.SimpleNamespace
    chip = namespace(hbm_bytes=16 * 2**30, devices=1)
    topology = namespace(name="v5e:4x4", num_slices=1, devices=[None] * 16, chip=chip)
    config = namespace(batch_size=256, data=namespace(max_seq_length=512))
    cost = namespace(flops=1.0, collectives={}, unknown_loops=[], cycles={})
    sizes = {"mesh": {}, "rows_per_chip": 16.0, "peak_bytes": 3 * 2**29, "unsharded_fraction": 0.0, "model_flops": 1.0}
    compiled = namespace(topology=topology, config=config, fits=True, compile_seconds=70.0, cost=cost, **sizes)
    estimate = namespace(seconds={}, bandwidth_seconds=0.0, step_seconds=0.131, utilization=0.2)
    folder = shutil.copytree(other, tmp_path / "run")
    (folder / "compile.json").write_text(json.dumps(report.to_json(compiled, estimate)))
    text = text_of(page_lib.compile_section(run_lib.read_runs([str(folder)])))
    assert "v5e:4x4, 16 chips" in text and "1.5 of 16.00 GiB" in text and "131 ms" in text


# ---- safe to open --------------------------------------------------------------------------------

HOSTILE = "a $x^$ <script>alert(1)</script> & \"' \x1b[2J"


@pytest.mark.slow
def test_names_settings_and_scores_are_only_text_on_the_page(workdir, tmp_path):
    folder = shutil.copytree(workdir, tmp_path / HOSTILE.replace("/", "|"))
    second = shutil.copytree(workdir, tmp_path / "second")
    config = json.loads((folder / "config.json").read_text())
    config["data"]["directory"] = HOSTILE
    (folder / "config.json").write_text(json.dumps(config))
    dataset = json.loads((folder / "dataset.json").read_text())
    dataset["dropped"] = {HOSTILE: 7}
    dataset["splits"][HOSTILE] = dataset["splits"]["validation"]
    (folder / "dataset.json").write_text(json.dumps(dataset))
    starts = [{"step": 0, "time": HOSTILE, "devices": 1, "device_kind": HOSTILE}]
    (folder / "starts.json").write_text(json.dumps(starts))
    assert cli.main(["report", str(folder), str(second), f"--output={tmp_path}/out", "--rows=0"]) == 0
    tree = html.fromstring(read_page(tmp_path / "out"))
    assert not list(tree.iter("script")) and "alert(1)" in tree.text_content()
    assert not [name for element in tree.iter() for name in element.attrib if name.startswith("on")]


def test_the_tokens_of_an_article_are_only_text_on_the_page():
    token = examples.Token("<img src=x onerror=alert(1)>", "<b>", True, (("<script>", 0.5),), 0.9)
    shown = html.fromstring(examples_html.render_run("run", 3, [[token]]))
    assert not list(shown.iter("img", "b", "script")) and "<script> 50%" in shown.text_content()
