"""Beam pipelines on a Dask cluster of four processes: the same bytes as elsewhere, also if a process is killed."""

from __future__ import annotations

import os
import pathlib
import signal
import sys
import threading

import pytest
from invented_formats import SEEDS

from electramed_jax import cli
from electramed_jax.data.corpus.build import prepare
from electramed_jax.data.corpus.filtering import FilterConfig
from electramed_jax.data.packing.build import pack
from electramed_jax.data.parallel.beam_runner import BeamRunner
from electramed_jax.data.synthetic import pubmed_xml
from electramed_jax.data.tokenizer.train_vocab import train_vocab


def files_of(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class KillOneWorker(threading.Thread):
    """Kills the process of the cluster with most work, as soon as the lines of one input are written.

    Attributes:
      tasks: number of tasks that the process ran or held results of; 0 until it is killed.
    """

    def __init__(self, cluster, output: pathlib.Path):
        super().__init__(daemon=True)
        self.tasks = 0
        self._cluster, self._output, self._ended = cluster, output, threading.Event()

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self.join()

    def __enter__(self) -> KillOneWorker:
        self.start()
        return self

    def run(self) -> None:
        while not self._ended.wait(0.005):
            if any((self._output / ".work").glob("lines-*")):
                workers = self._cluster.scheduler.workers.values()
                tasks, address = max(
                    (len(worker.processing) + len(worker.has_what), worker.address) for worker in workers
                )
                (pid,) = (one.pid for one in self._cluster.workers.values() if one.worker_address == address)
                assert not (self._output / "documents.json").exists()
                os.kill(pid, signal.SIGKILL)
                self.tasks = tasks
                return


@pytest.mark.slow
@pytest.mark.multiprocess
def test_documents_of_every_format_and_rows_have_the_same_bytes_although_a_process_is_killed(tmp_path):
    distributed = pytest.importorskip("distributed")
    for name, data in SEEDS.items():
        (tmp_path / f"in-{name}{'.md' * (name == 'markdown')}").write_bytes(data)
    pubmed_xml.write_pubmed_xml(str(tmp_path / "xml"), articles=60, num_files=4)
    inputs = [str(tmp_path / "in-*"), str(tmp_path / "xml" / "*.xml.gz")]
    config = FilterConfig(validation=0.2, test=0.1, min_chars=5)
    info = prepare(inputs, str(tmp_path / "direct"), config, beam=BeamRunner("DirectRunner"))
    assert {name for row in info["inputs"] for name in row["formats"]} >= SEEDS.keys() - {"tar", "zip"}
    with distributed.LocalCluster(
        n_workers=4, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as cluster:
        options = (f"--dask_client_address={cluster.scheduler_address}", "--dask_npartitions=8")
        with KillOneWorker(cluster, tmp_path / "dask") as killer:
            assert prepare(inputs, str(tmp_path / "dask"), config, beam=BeamRunner("DaskRunner", options)) == info
        assert killer.tasks > 0
        assert files_of(tmp_path / "dask") == files_of(tmp_path / "direct")
        train_vocab(str(tmp_path / "direct"), str(tmp_path / "vocab.txt"), size=500, workers=1)
        rows = {
            name: pack(
                str(tmp_path / "direct"), str(tmp_path / "vocab.txt"), str(tmp_path / name), row_length=64, **how
            )
            for name, how in {
                "rows": {"workers": 1},
                "rows on Dask": {"beam": BeamRunner("DaskRunner", options)},
            }.items()
        }
    assert rows["rows on Dask"] == rows["rows"]
    assert files_of(tmp_path / "rows on Dask") == files_of(tmp_path / "rows")


def test_without_dask_the_error_names_the_extra_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert cli.main(["prepare", "--input", "a.xml", "--output", str(tmp_path / "out"), "--runner=DaskRunner"]) == 2
    assert "--runner=DaskRunner needs Dask; install electramed_jax[dask]" in capsys.readouterr().err
