"""Pipelines on Beam's DirectRunner: the output equals that of the pool of processes byte for byte."""

from __future__ import annotations

import gzip
import pathlib
import subprocess
import sys
from unittest.mock import Mock

import pytest
from invented_literature import SENTENCE, literature, record, write_jsonl, write_xml

from electramed_jax import cli
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files as storage
from electramed_jax.data.corpus import build_near_duplicates, dedup
from electramed_jax.data.corpus.build import prepare
from electramed_jax.data.corpus.filtering import FilterConfig
from electramed_jax.data.dataset import manifest
from electramed_jax.data.packing import build, build_beam, token_files
from electramed_jax.data.packing.build import pack
from electramed_jax.data.parallel import shuffle_files
from electramed_jax.data.parallel.beam_runner import BeamRunner
from electramed_jax.data.synthetic import pubmed_xml
from electramed_jax.data.tokenizer.train_vocab import train_vocab

DIRECT = BeamRunner("DirectRunner")


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> tuple[list[str], str]:
    """(inputs, an evaluation file): records kept and dropped for every reason, across files, some of them damaged."""
    folder = tmp_path_factory.mktemp("corpus")
    paths = literature(folder / "xml", count=8)
    cut = write_xml(folder / "xml" / "cut.xml", *(record(n) for n in range(91, 95)))
    data = pathlib.Path(cut).read_bytes()
    pathlib.Path(f"{cut}.gz").write_bytes(gzip.compress(data[: len(data) * 2 // 3], mtime=0))
    pathlib.Path(cut).unlink()
    many = [
        {"id": f"j{n}", "text": " ".join(SENTENCE.format(11 * n + m) for m in range(2 + 5 * n % 11))} for n in range(60)
    ]
    for n in range(20):  # long enough to be kept, but the tokenizer drops every character
        many.insert(4 * n, {"id": f"empty{n}", "text": "\ue000 " * (40 + n)})
    many += [{"id": "short", "text": "Few words."}, {"id": "again", "text": many[1]["text"].upper()}, {"text": 3}]
    held_out = write_jsonl(folder / "held_out.jsonl", {"text": SENTENCE.format(36)})
    (folder / "empty.jsonl").write_text("")
    inputs = [*paths, f"{cut}.gz", write_jsonl(folder / "many.jsonl", *many), str(folder / "empty.jsonl")]
    return inputs, held_out


@pytest.mark.slow
def test_documents_equal_those_of_the_local_build_byte_for_byte(corpus, tmp_path, monkeypatch):
    inputs, held_out = corpus
    options = {"config": FilterConfig(validation=0.2, test=0.1), "evaluation_files": [held_out], "near_duplicates": 0.8}
    info = prepare(inputs, str(tmp_path / "local"), workers=1, **options)
    monkeypatch.setattr(shuffle_files, "ROWS_AT_ONCE", 7)  # an input's keys in several pieces
    monkeypatch.setattr(build_near_duplicates, "_SIGNATURE_BATCH", 5)
    assert prepare(inputs, str(tmp_path / "beam"), beam=DIRECT, **options) == info
    assert files_of(tmp_path / "beam") == files_of(tmp_path / "local")
    everything = {"withdrawn", "superseded", "duplicate", "near_duplicate", "held_out", "too_short", "bad_record"}
    assert everything | {"truncated_xml"} == set(info["dropped"])
    assert len(files_of(tmp_path / "beam")) == 3 * len(inputs) + 1


@pytest.fixture(scope="module")
def documents(corpus, tmp_path_factory) -> tuple[str, str]:
    """(documents folder, vocabulary)."""
    folder = tmp_path_factory.mktemp("documents")
    prepare(corpus[0], str(folder / "out"), FilterConfig(validation=0.2, test=0), workers=1)
    train_vocab(str(folder / "out"), str(folder / "vocab.txt"), size=300)
    return str(folder / "out"), str(folder / "vocab.txt")


@pytest.mark.slow
@pytest.mark.parametrize("format", ["packed", "electra"])
def test_rows_equal_those_of_the_local_build_byte_for_byte(documents, tmp_path, monkeypatch, format):
    monkeypatch.setattr(build, "WINDOW_ROWS", 30)  # several windows, across the boundaries of parts,
    monkeypatch.setattr(token_files, "BLOCK_TOKENS", 100)  # of blocks and of shards
    monkeypatch.setattr(token_files, "_BATCH_DOCUMENTS", 7)
    options = {"row_length": 64, "rows_per_shard": 40, "format": format}
    packed = pack(*documents, str(tmp_path / "local"), workers=1, **options)
    assert pack(*documents, str(tmp_path / "beam"), beam=DIRECT, **options) == packed
    assert files_of(tmp_path / "beam") == files_of(tmp_path / "local")
    assert len(packed.splits["train"].shards) > 3 and packed.splits["validation"].rows > 30
    assert packed.splits["test"].shards == ()
    assert packed.dropped["no_tokens"] == 20


@pytest.mark.slow
def test_workers_in_another_process_and_remote_storage_give_the_same_bytes(tmp_path, gcs):
    def build_all(root: str, **how: object) -> dict[str, bytes]:
        inputs, documents, vocabulary, packed = (storage.join(root, n) for n in ("xml", "documents", "v.txt", "packed"))
        pubmed_xml.write_pubmed_xml(inputs, articles=60, num_files=3)
        prepare([storage.join(inputs, "*.xml.gz")], documents, FilterConfig(validation=0.2, test=0), **how)
        train_vocab(documents, vocabulary, size=300)
        pack(documents, vocabulary, packed, row_length=32, rows_per_shard=100, **how)
        folders = [packed, documents, storage.join(documents, "train"), storage.join(documents, "validation")]
        paths = [storage.join(folder, name) for folder in folders for name in storage.sizes(folder)]
        return {path.removeprefix(root): storage.read_bytes(path) for path in paths}

    elsewhere = BeamRunner("DirectRunner", ("--direct_running_mode=multi_processing", "--direct_num_workers=1"))
    assert build_all("gs://bucket/deep", beam=elsewhere) == build_all(str(tmp_path), workers=1)
    assert [name for name in gcs.objects if ".work" in name or ".tmp" in name] == []


def test_a_user_error_of_a_worker_has_the_message_of_the_local_build(tmp_path):
    write_xml(tmp_path / "a.xml", record(11))
    damaged = tmp_path / "b.xml"
    damaged.write_text(damaged.with_name("a.xml").read_text()[:-60])
    messages = []
    for how in ({"workers": 1}, {"beam": DIRECT}):
        with pytest.raises(UserError) as caught:
            prepare([str(tmp_path / "*.xml")], str(tmp_path / "out"), FilterConfig(strict=True), **how)
        messages.append(str(caught.value))
    assert messages[0] == messages[1] and "b.xml, line" in messages[0]


@pytest.mark.slow
def test_the_user_error_of_an_earlier_run_is_not_raised_again(tmp_path, monkeypatch):
    path = write_xml(tmp_path / "a.xml", record(11))
    for error in (UserError("disk full"), RuntimeError("power failure")):
        with monkeypatch.context() as patch:
            patch.setattr(dedup, "superseded_mask", Mock(side_effect=error))
            with pytest.raises(type(error), match=str(error)):
                prepare([path], str(tmp_path / "out"), beam=DIRECT)
    prepare([path], str(tmp_path / "out"), beam=DIRECT)


@pytest.mark.slow
def test_a_failed_pipeline_leaves_no_dataset_and_either_build_can_resume_it(documents, tmp_path, monkeypatch):
    options = {"row_length": 64, "rows_per_shard": 40}
    pack(*documents, str(tmp_path / "whole"), workers=1, **options)
    for then in ({"workers": 1}, {"beam": DIRECT}):
        out = tmp_path / "-".join(then)
        with monkeypatch.context() as patch:
            patch.setattr(build_beam.RowFile, "__getitem__", Mock(side_effect=RuntimeError("power failure")))
            with pytest.raises(RuntimeError, match="power failure"):
                pack(*documents, str(out), beam=DIRECT, **options)
        with pytest.raises(UserError, match="packing did not finish"):
            manifest.read_manifest(str(out))
        pack(*documents, str(out), **then, **options)
        assert files_of(out) == files_of(tmp_path / "whole")


@pytest.mark.slow
def test_a_pipeline_that_finished_before_an_interruption_is_not_run_again(documents, tmp_path, monkeypatch, capsys):
    pack(*documents, str(tmp_path / "whole"), workers=1, row_length=64)
    with monkeypatch.context() as patch:
        patch.setattr(build.manifest, "write_manifest", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pack(*documents, str(tmp_path / "out"), beam=DIRECT, row_length=64)
    capsys.readouterr()
    monkeypatch.setattr(BeamRunner, "_run", Mock(side_effect=AssertionError))
    pack(*documents, str(tmp_path / "out"), beam=DIRECT, row_length=64)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def test_the_runner_that_needs_a_download_is_not_used(tmp_path, monkeypatch):
    prism = Mock()
    monkeypatch.setattr("apache_beam.runners.portability.prism_runner.PrismRunner", prism)
    prepare([write_xml(tmp_path / "a.xml", record(11))], str(tmp_path / "out"), beam=DIRECT)
    assert not prism.called


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--runner=Direct"], "runner='Direct': Beam has no such runner; use one of BundleBasedDirectRunner, "),
        (["--runner=DirectRunner", "--workers=2"], "--workers does not apply to --runner"),
        (["--beam_options=--project=p"], "--beam_options needs --runner; add one, e.g. --runner=DirectRunner"),
        (["--runner=DirectRunner", "--beam_options=--porject=p"], "beam_options: unknown option --porject"),
        (["--runner=DirectRunner", "--beam_options=project=p"], "'project=p' is not an option; use --name=value"),
        (["--runner=DirectRunner", "--beam_options=--direct_running_mode=x"], "invalid choice: 'x'"),
        (["--runner=DirectRunner", "--beam_options=--project='p"], "No closing quotation; quote as in a shell"),
        (["--runner=DataflowRunner"], "Dataflow's workers cannot reach it; give a path that begins with gs://"),
    ],
)
@pytest.mark.parametrize("command", ["prepare", "pack"])
def test_invalid_flags_are_reported_in_one_line(tmp_path, capsys, command, flags, message, documents):
    arguments = {"prepare": ["--input", "absent.xml"], "pack": ["--documents", documents[0], "--vocab", documents[1]]}
    assert cli.main([command, *arguments[command], "--output", str(tmp_path / "out"), *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out").exists()


def test_without_beam_the_error_names_the_extra_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.delitem(sys.modules, "apache_beam.options.pipeline_options", raising=False)
    assert cli.main(["prepare", "--input", "a.xml", "--output", str(tmp_path), "--runner=DirectRunner"]) == 2
    assert "--runner needs Apache Beam; install electramed_jax[beam]" in capsys.readouterr().err


def test_without_a_pipeline_beam_is_not_imported():
    code = (
        "import sys; from electramed_jax.data.packing import build; from electramed_jax.commands import prepare, pack; "
    )
    subprocess.run([sys.executable, "-c", code + "assert 'apache_beam' not in sys.modules"], check=True)
