"""Writes tests/golden/written_by_22010e1.tar.gz: files written by commit 22010e1, and the results of that commit.

tests/test_compatibility.py unpacks the archive and runs the same commands with the code of today. The archive was made
with these commands; the script needs a checkout of the old commit, because the code of today writes other files:

    git worktree add ../before 22010e1
    python tests/support/make_compatibility_fixture.py --repository=../before \\
      --output=tests/golden/written_by_22010e1.tar.gz

The script writes text files and corpora, and runs the command line of the old commit in subprocesses:

    electramed prepare, vocab, pack    documents/, vocab.txt, packed/: 32 tokens a row
    electramed pretrain                pretrain/: stopped at step 7 of 10, between two entries of metrics.jsonl
    electramed finetune                ner/: the first of two seeds is finished, the second is stopped at step 57 of 60
    electramed finetune                qa/: finished, with a first stage

It then runs `reading_commands` in a copy, which resume the workdirs, export and predict, and writes the results to
expected.json and export_of_old_commit/. This is done twice, in folders of different names. The script fails where the
results differ.

This module imports nothing of the package. All settings have the names of the old commit. All paths in the commands are
relative, because config.json, data.json and task.json contain them.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import hashlib
import importlib.metadata
import io
import json
import os
import pathlib
import platform
import random
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

COMMIT = "22010e1"
ARCHIVE = f"written_by_{COMMIT}.tar.gz"
EXPECTED = "expected.json"
# XLA generates code for the CPU that it runs on, and divides products among threads. These flags fix both. Its libraries
# still choose their kernels by the CPU: `arithmetic_digest` shows whether a CPU computes the same bits. Without
# optimization, compilation takes a fraction of the time.
XLA_FLAGS = (
    "--xla_cpu_max_isa=AVX2 --xla_cpu_multi_thread_eigen=false"
    " --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)

ROW_LENGTH = 32
STOP_AFTER = 7  # step of pre-training; metrics.jsonl has entries of steps 5 and 10
PRETRAIN = {
    "model.max_positions": ROW_LENGTH,
    "model.embedding_size": 4,
    "model.hidden_size": 16,
    "model.num_layers": 1,
    "model.num_heads": 2,
    "model.intermediate_size": 16,
    "model.generator_hidden_size": 8,
    "model.generator_num_layers": 1,
    "model.generator_num_heads": 1,
    "model.generator_intermediate_size": 16,
    "model.dropout": 0.1,
    "model.attention_dropout": 0.1,
    "model.remat": "none",
    "optimizer.warmup_steps": 2,
    "optimizer.learning_rate": 1e-3,
    "data.directory": "packed",
    "data.row_length": ROW_LENGTH,
    "data.seed": 3,
    "seed": 7,
    "batch_size": 8,
    "accumulation_steps": 2,
    "total_steps": 10,
    "log_every": 5,
    "eval_every": 5,
    "eval_batches": 2,
    "save_every": 4,
    "keep_checkpoints": 1,
    "keep_every": 8,
    "grace_seconds": 20.0,
}
NER = {
    "init": "pretrain",
    "task.data": "corpora/ner",
    "task.max_length": ROW_LENGTH,
    "optimizer.learning_rate": 0.01,
    "optimizer.layer_decay": 0.9,
    "seed": 3,
    "seeds": 2,
    "batch_size": 8,
    "epochs": 10.0,
    "eval_every": 30,
    "log_every": 10,
    "save_every": 1000,
    "grace_seconds": 20.0,
}
NER_STEPS, NER_STOP = 60, 57  # steps of a seed, and the step at which the second one is stopped
QA = {
    "init": "scratch",
    "like": "pretrain",
    "task.train": "corpora/qa/train.json",
    "task.dev": "corpora/qa/dev.json",
    "task.test": "corpora/qa/test.json",
    "task.max_length": ROW_LENGTH,
    "qa.stride": 8,
    "qa.max_question": 8,
    "qa.max_answer_pieces": 4,
    "qa.first.train": "corpora/qa/first.json",
    "qa.first.dev_fraction": 0.25,
    "qa.first.epochs": 2.0,
    "qa.first.learning_rate": 0.01,
    "optimizer.learning_rate": 0.01,
    "optimizer.layer_decay": 0.9,
    "batch_size": 8,
    "epochs": 4.0,
    "eval_every": 100,
    "log_every": 5,
    "grace_seconds": 20.0,
}
SETTINGS = {"pretrain": PRETRAIN, "ner": NER, "qa": QA}
CONFIG_FILES = {"pretrain": "pretrain_tiny.py", "ner": "finetune_ner.py", "qa": "finetune_qa.py"}
PREPARE = ("--input", "texts.jsonl", "--exclude", "held_out.txt", "--validation=0.1", "--test=0.1", "--workers=1")
PACK = ("--vocab=vocab.txt", f"--row_length={ROW_LENGTH}", "--workers=1")
PREDICT = {
    "entities": ("--input", "corpora/texts.txt", "--output=entities.jsonl"),
    "answers": ("--input", "corpora/qa/test.json", "--output=answers.jsonl"),
}

# Values that differ between two runs of the same code.
TIMES = (
    "step_seconds", "tokens_per_second", "eta_seconds", "train_seconds", "model_flops_utilization", "host_memory_bytes",
)  # fmt: skip
# Scores that the old commit did not compute.
NEW_SCORES = ("text_precision", "text_recall", "text_f1", "word_macro_f1")
# Files of an export: README.md contains the version of the package and the time that the steps took, and the PNG files
# depend on the version of matplotlib.
NOT_COMPARED = (".md", ".png")

# Reads a saved config.json as a config file, so that a run can be resumed without any setting on the command line.
SAVED_CONFIG = """\
import json
import pathlib

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(json.loads(pathlib.Path({path!r}).read_text()))
"""
# Runs several command lines in one process, because importing the libraries takes longer than most commands.
PROGRAM = """\
import contextlib
import io
import json
import os
import sys
import traceback

sys.modules["torch"] = None  # no command needs it, and tensorboardX imports it for seconds where it is installed

from electramed_jax import cli

done = []
for folder, arguments in json.load(sys.stdin):
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()) as output, contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            code = cli.main([*arguments, "--json"])
        except BaseException:
            code = 1
            traceback.print_exc()
    done.append({"code": code, "output": output.getvalue(), "errors": errors.getvalue()})
json.dump(done, sys.stdout)
"""
# Precedes PROGRAM where the second seed of ner/ is to be stopped: the process sends itself SIGTERM.
STOPPED = """\
import os
import signal

from electramed_jax.common.chrono import Chrono

count, steps = Chrono.count, []

def count_and_stop(self, step):
    count(self, step)
    steps.append(step)
    if len(steps) == {steps}:
        os.kill(os.getpid(), signal.SIGTERM)

Chrono.count = count_and_stop
"""

# ---- the command line ----------------------------------------------------------------------------------------------

Command = tuple[pathlib.Path, list[str]]  # the working directory, and the arguments of `electramed`


@dataclasses.dataclass(frozen=True)
class Done:
    """Exit code and output of a command."""

    command: Command
    code: int
    output: str
    errors: str

    def result(self, code: int = 0) -> dict[str, Any]:
        """Returns the line of JSON that ends the output.

        Raises:
          AssertionError: the command ended with another exit code than `code`.
        """
        assert self.code == code, f"electramed {' '.join(self.command[1])}: exit code {self.code}\n{self.errors}"
        return json.loads(self.output.splitlines()[-1])


def run(
    repository: pathlib.Path,
    commands: Mapping[str, Command],
    *,
    xla_flags: str = XLA_FLAGS,
    before: str = "",
) -> dict[str, Done]:
    """Runs commands of a checkout, one after the other, in one process.

    Args:
      repository: the checkout.
      commands: by any name.
      xla_flags: see `XLA_FLAGS`.
      before: Python code to run first.

    Returns:
      The outcome of each command, also of those that failed.
    """
    with tempfile.TemporaryDirectory() as cache:
        environment = {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": "1",
            "JAX_COMPILATION_CACHE_DIR": cache,  # two commands of one process compile the same program once
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "XLA_FLAGS": xla_flags,
            # The checkout comes before an installed package.
            "PYTHONPATH": os.pathsep.join([str(repository.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])]),
        }
        process = subprocess.run(
            [sys.executable, "-P", "-c", before + PROGRAM],
            input=json.dumps([[str(folder.resolve()), arguments] for folder, arguments in commands.values()]),
            env=os.environ | environment,
            capture_output=True,
            text=True,
            preexec_fn=_use_one_core,
        )
    assert process.returncode == 0, process.stderr
    found = zip(commands.items(), json.loads(process.stdout.splitlines()[-1]), strict=True)
    return {name: Done(command, **outcome) for (name, command), outcome in found}


def _use_one_core() -> None:
    """Limits this process to one CPU core: XLA divides loops by the number of cores, which changes the last bits."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[os.getpid() % len(cores)]})


def settings(kind: str, repository: pathlib.Path) -> list[str]:
    """Returns every setting of the run `kind`, a key of `SETTINGS`, by its name in the old commit."""
    given = [f"--config.{name}={value}" for name, value in SETTINGS[kind].items()]
    return [f"--config={repository.resolve() / 'configs' / CONFIG_FILES[kind]}", *given]


def saved_settings(kind: str, folder: pathlib.Path) -> list[str]:
    """Returns no setting, but a config file that reads a copy of the config.json that the old commit wrote."""
    shutil.copyfile(folder / kind / "config.json", folder / f"{kind}_config.json")
    (folder / f"{kind}_config.py").write_text(SAVED_CONFIG.format(path=f"{kind}_config.json"))
    return [f"--config={kind}_config.py"]


def writing_commands(folder: pathlib.Path, repository: pathlib.Path) -> dict[str, Command]:
    """Returns the commands that write documents, vocabulary, packed rows and, with `STOPPED`, the workdirs."""
    commands = {
        "prepare": ["prepare", *PREPARE, "--output=documents"],
        "vocab": ["vocab", "--documents=documents", "--output=vocab.txt", "--size=250"],
        "pack": ["pack", "--documents=documents", *PACK, "--output=packed"],
        "pretrain": ["pretrain", *settings("pretrain", repository), "--workdir=pretrain", f"--stop_after={STOP_AFTER}"],
        "ner": ["finetune", *settings("ner", repository), "--workdir=ner"],
        "qa": ["finetune", *settings("qa", repository), "--workdir=qa"],
    }
    return {name: (folder, arguments) for name, arguments in commands.items()}


def reading_commands(folder: pathlib.Path, repository: pathlib.Path) -> dict[str, Command]:
    """Returns the commands that read the files of the old commit, with the names of that commit.

    ner/ starts from the stopped pretrain/, and is therefore resumed first.
    """
    commands = {
        "inspect packed": ["inspect", "packed", "--verify"],
        "inspect documents": ["inspect", "documents"],
        "inspect pretrain": ["inspect", "pretrain"],
        "inspect ner": ["inspect", "ner"],
        "prepare": ["prepare", *PREPARE, "--output=documents_again"],
        "pack": ["pack", "--documents=documents", *PACK, "--output=packed_again"],
        "predict entities": ["predict", "--model=ner", f"--seed={NER['seed']}", *PREDICT["entities"]],
        "predict answers": ["predict", "--model=qa", *PREDICT["answers"]],
        "ner": ["finetune", *settings("ner", repository), "--workdir=ner"],
        "qa": ["finetune", *settings("qa", repository), "--workdir=qa"],
        "pretrain": ["pretrain", *settings("pretrain", repository), "--workdir=pretrain"],
        "export": ["export", "--workdir=pretrain", "--output=export", "--name=compatibility"],
        "import": ["import", "--input=export_of_old_commit", "--data=packed", "--output=imported.py"],
    }
    return {name: (folder, arguments) for name, arguments in commands.items()}


def commands_with_saved_settings(folder: pathlib.Path) -> dict[str, Command]:
    """Returns the commands that go on in the workdirs with the settings that the old commit saved there."""
    return {
        "qa": (folder, ["finetune", *saved_settings("qa", folder), "--workdir=qa"]),
        "pretrain": (folder, ["pretrain", *saved_settings("pretrain", folder), "--workdir=pretrain"]),
    }


def versions() -> dict[str, str]:
    """Returns what the bits of the results depend on: versions of compilers and writers, and the kind of CPU."""
    packages = ("jax", "jaxlib", "tokenizers", "safetensors")
    return {name: importlib.metadata.version(name) for name in packages} | {"machine": platform.machine()}


# Products of the sizes of the runs, and the functions that a train step uses.
ARITHMETIC = """
import hashlib, jax, jax.numpy as jnp
digest = hashlib.sha256()
for rows, inner, columns in ((256, 16, 16), (256, 16, 32), (512, 16, 190), (160, 8, 16), (17, 33, 65)):
    a = jax.random.normal(jax.random.key(rows), (rows, inner))
    b = jax.random.normal(jax.random.key(columns), (inner, columns))
    product = jax.jit(lambda a, b: (a @ b, (a @ b) @ b.T, a.T @ (a @ b)))(a, b)
    functions = (jax.nn.softmax, jnp.tanh, jax.lax.erf, jnp.exp, lambda x: jax.lax.rsqrt(x * x + 1), jnp.sum, jnp.cumsum)
    values = jax.jit(lambda x: [function(x) for function in functions])(product[0])
    for leaf in jax.tree.leaves((product, values)):
        digest.update(jax.device_get(leaf).tobytes())
print(digest.hexdigest())
"""


def arithmetic_digest() -> str:
    """Returns a checksum of the results of `ARITHMETIC` on this CPU, with `XLA_FLAGS` on one core."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", "XLA_FLAGS": XLA_FLAGS}
    process = subprocess.run(
        [sys.executable, "-c", ARITHMETIC], env=environment, capture_output=True, text=True, preexec_fn=_use_one_core
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


# ---- the results ---------------------------------------------------------------------------------------------------


def results(folder: pathlib.Path, done: Mapping[str, Done]) -> dict[str, Any]:
    """Returns what `reading_commands` printed and left in the folder."""
    return {
        "inspect packed": done["inspect packed"].result(),
        "inspect documents": done["inspect documents"].result(),
        "prepare": done["prepare"].result()["splits"],
        "documents": document_checksums(folder / "documents_again"),
        "pack": done["pack"].result()["splits"],
        "shards": checksums(folder / "packed_again", "*.tfrecord-*"),  # manifest.json contains the package's version
        "entities": lines_of(folder / "entities.jsonl"),
        "answers": lines_of(folder / "answers.jsonl"),
        "ner": finetuning_results(folder / "ner"),
        "qa": finetuning_results(folder / "qa"),
        "qa first stage": finetuning_results(folder / "qa" / "first"),
        "pretrain": pretraining_results(folder / "pretrain"),
        "export": checksums(folder / "export"),
    }


def pretraining_results(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns the metrics of a finished pre-training, its checkpoints, and the checksums of its last state."""
    saved = sorted(path.name for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())
    counters = json_of(workdir / "checkpoints" / str(PRETRAIN["total_steps"]) / "clock" / "metadata")
    return {
        "metrics": metrics_of(workdir),
        "checkpoints": saved,
        "tokens": counters["tokens"],
        "state checksums": counters["fingerprint"],  # of parameters and optimizer state
    }


def finetuning_results(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns the results of each seed of a fine-tuning workdir, without durations, and over all seeds."""
    summary = json_of(workdir / "results.json")
    found: dict[str, Any] = {name: without_times(summary[name]) for name in ("seeds", "scores", "runs")}
    for folder in sorted(workdir.glob("seed-*")):
        found[folder.name] = {
            "scores": without_times(json_of(folder / "scores.json")),
            "metrics": metrics_of(folder),
            "predictions": {path.name: path.read_text() for path in sorted(folder.glob("predictions-*"))},
        }
    return found


def document_checksums(folder: pathlib.Path) -> dict[str, str]:
    """Returns the SHA-256 of the text of each part of a documents folder; the .gz depends on the version of zlib."""
    paths = sorted(folder.rglob("part-*.gz"))
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
        for path in paths
    }


def metrics_of(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the entries of metrics.jsonl without durations and speeds."""
    return without_times(lines_of(folder / "metrics.jsonl"))


def without_times(value: Any) -> Any:
    """Returns a JSON value without the keys of `TIMES` and `NEW_SCORES`."""
    if isinstance(value, dict):
        return {name: without_times(inner) for name, inner in value.items() if name not in TIMES + NEW_SCORES}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def checksums(folder: pathlib.Path, pattern: str = "*") -> dict[str, str]:
    """Returns the SHA-256 of each file below a folder, by its path, except those with the endings `NOT_COMPARED`."""
    paths = sorted(path for path in folder.rglob(pattern) if path.is_file() and path.suffix not in NOT_COMPARED)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def json_of(path: pathlib.Path) -> Any:
    """Returns the content of a JSON file."""
    return json.loads(path.read_text())


def lines_of(path: pathlib.Path) -> list[Any]:
    """Returns the content of a file with one JSON value a line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---- text and corpora ----------------------------------------------------------------------------------------------

DRUGS = ("atenolol", "metoprolol", "timolol", "sotalol", "nadolol")
DISEASES = ("gastritis", "arthritis", "nephritis", "dermatitis")
GENES = ("renin", "kinase", "actin", "insulin", "keratin")
# `prepare --exclude` drops a document that contains this sentence, of more than 80 characters.
HELD_OUT = (
    "Patients with acute gastritis were treated with a dose of sotalol that blocks renin in the liver and the heart."
)
ORGANS = ("liver", "heart", "kidney", "skin", "lung")


def sentence(draw: random.Random) -> list[tuple[str, str]]:
    """Returns words with their IOB2 tags."""
    drug, disease = (draw.choice(DRUGS), "B-Drug"), (draw.choice(DISEASES), "I-Disease")
    organ, gene = draw.choice(ORGANS), draw.choice(GENES)
    forms = (
        ["patients", "with", ("acute", "B-Disease"), disease, "were", "treated", "with", drug],
        [drug, "blocks", gene, "in", "the", organ],
        ["a", "dose", "of", drug, "prevents", ("acute", "B-Disease"), disease, "of", "the", organ],
        ["the", gene, "of", "the", organ, "is", "inhibited", "by", drug],
    )
    return [part if isinstance(part, tuple) else (part, "O") for part in draw.choice(forms)]


def write_inputs(folder: pathlib.Path) -> None:
    """Writes the text and the corpora that the commands read."""
    texts = [*_texts(72), {"id": "held out", "text": f"A case report. {HELD_OUT}"}]
    (folder / "texts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    (folder / "held_out.txt").write_text(HELD_OUT + "\n")
    (folder / "corpora" / "ner").mkdir(parents=True)
    for number, (split, count) in enumerate({"train": 48, "dev": 12, "test": 12}.items()):
        draw = random.Random(100 + number)
        sentences = ["".join(f"{word}\t{tag}\n" for word, tag in sentence(draw)) for _ in range(count)]
        (folder / "corpora" / "ner" / f"{split}.txt").write_text("\n".join(sentences))
    draw = random.Random(200)
    texts = [" ".join(word for _ in range(4) for word, _ in sentence(draw)) for _ in range(6)]
    (folder / "corpora" / "texts.txt").write_text("\n\n".join(texts) + "\n")
    (folder / "corpora" / "qa").mkdir()
    for number, (name, count) in enumerate({"first": 32, "train": 24, "dev": 8, "test": 8}.items()):
        (folder / "corpora" / "qa" / f"{name}.json").write_text(json.dumps(_questions(name, count, 300 + number)))


def _texts(count: int) -> Iterator[dict[str, str]]:
    for number in range(count):
        draw = random.Random(number)
        sentences = [" ".join(word for word, _ in sentence(draw)) for _ in range(draw.randrange(2, 7))]
        yield {"id": f"text-{number}", "text": ". ".join([f"Trial {number} of {draw.choice(DRUGS)}", *sentences]) + "."}


def _questions(name: str, count: int, seed: int) -> dict[str, Any]:
    """Returns questions in SQuAD's form; the passages are longer than a window, so that there are several of each."""
    draw = random.Random(seed)
    paragraphs = []
    for number in range(count):
        drugs, genes = draw.sample(DRUGS, 5), draw.sample(GENES, 5)
        facts = [f"{drug} blocks {gene} in the {draw.choice(ORGANS)}" for drug, gene in zip(drugs, genes, strict=True)]
        context, place = ". ".join(facts) + ".", draw.randrange(5)
        answer = {"text": drugs[place], "answer_start": context.index(f"{drugs[place]} blocks {genes[place]}")}
        question = f"which of the drugs of trial {seed}{number:02} in the {draw.choice(ORGANS)} blocks {genes[place]} ?"
        qas = [{"id": f"{name}-{number}", "question": question, "answers": [answer]}]
        paragraphs.append({"context": context, "qas": qas})
    return {"version": "1.1", "data": [{"title": name, "paragraphs": paragraphs}]}


# ---- the archive ---------------------------------------------------------------------------------------------------


def write_with_old_commit(folder: pathlib.Path, repository: pathlib.Path) -> None:
    """Writes documents, vocabulary, packed rows and the three workdirs.

    Raises:
      AssertionError: a workdir was not stopped where it should be.
    """
    write_inputs(folder)
    commands = writing_commands(folder, repository)
    ner = {"ner": commands.pop("ner")}
    first = {name: commands.pop(name) for name in ("prepare", "vocab", "pack", "pretrain")}
    stop = STOPPED.format(steps=NER_STEPS + NER_STOP)
    for done in run(repository, first | commands).values():
        done.result()
    run(repository, ner, before=stop)["ner"].result(42)
    for workdir, step, log_every in (
        (folder / "pretrain", STOP_AFTER, PRETRAIN["log_every"]),
        (folder / "ner" / f"seed-{NER['seed'] + 1}", NER_STOP, NER["log_every"]),
    ):
        assert [path.name for path in (workdir / "checkpoints").glob("[0-9]*")] == [str(step)], workdir
        assert pending_sums(workdir, step)["step_count"] == step % log_every > 0, workdir


def pending_sums(workdir: pathlib.Path, step: int) -> dict[str, float]:
    """Returns the sums that a checkpoint of the old commit keeps of the steps after the last entry of metrics.jsonl."""
    return json_of(workdir / "checkpoints" / str(step) / "clock" / "metadata")["untold"]


def pack(folder: pathlib.Path, archive: pathlib.Path) -> None:
    """Writes a folder as a .tar.gz: sorted, without times, owners and permissions of this machine."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            info = tarfile.TarInfo(path.relative_to(folder).as_posix())
            info.mode = 0o755 if path.is_dir() else 0o644
            if path.is_dir():
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            else:
                info.size = path.stat().st_size
                tar.addfile(info, io.BytesIO(path.read_bytes()))
    archive.parent.mkdir(parents=True, exist_ok=True)
    with (
        open(archive, "wb") as file,
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=9) as packed,
    ):
        packed.write(content.getvalue())


def unpack(archive: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Unpacks the archive into a folder, and returns the folder."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder


def remove_names_of_this_machine(folder: pathlib.Path, repository: pathlib.Path) -> None:
    """Removes TensorBoard's files, which are named after the host, compiled programs, and the paths that orbax writes.

    Raises:
      AssertionError: another file contains a path or the name of this machine.
    """
    for name in ("tensorboard", "compiled"):
        for path in list(folder.rglob(name)):
            shutil.rmtree(path)
    for path in folder.rglob("commit_success.txt"):  # orbax looks only whether the file exists
        path.write_text(path.read_text().replace(f"{folder}/", ""))
    places = (str(folder), str(repository.resolve()), str(pathlib.Path.home()), tempfile.gettempdir())
    for path in (path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for place in places:
            assert place.encode() not in content, f"{path} contains {place}"
        host = re.compile(rf"\b{re.escape(socket.gethostname())}\b")
        is_text = path.suffix in (".json", ".jsonl", ".md", ".txt") or path.name == "metadata"
        assert not host.search(path.name) and not (is_text and host.search(content.decode())), f"{path} names the host"


def results_in_copy(folder: pathlib.Path, copy: pathlib.Path, repository: pathlib.Path) -> dict[str, Any]:
    """Returns the results of the old commit in a copy of the folder."""
    shutil.copytree(folder, copy)
    commands = reading_commands(copy, repository)
    del commands["import"]  # its input is written last
    done = run(repository, commands)
    for command in done.values():
        command.result()
    return results(copy, done)


def make(repository: pathlib.Path, archive: pathlib.Path) -> None:
    """Writes the archive.

    Raises:
      AssertionError: the results differ between two folders, or a file names this machine.
    """
    with tempfile.TemporaryDirectory() as temporary:
        scratch = pathlib.Path(temporary)
        folder = scratch / "written"
        folder.mkdir()
        write_with_old_commit(folder, repository)
        remove_names_of_this_machine(folder, repository)
        expected = results_in_copy(folder, scratch / "copy", repository)
        again = results_in_copy(folder, scratch / "in another folder" / "copy", repository)
        assert again == expected, "the results differ between two folders"
        shutil.copytree(scratch / "copy" / "export", folder / "export_of_old_commit", ignore=_ignore_not_compared)
        written_by = {"commit": COMMIT, "XLA_FLAGS": XLA_FLAGS, "arithmetic": arithmetic_digest()} | versions()
        (folder / EXPECTED).write_text(json.dumps({"written_by": written_by} | expected, indent=1) + "\n")
        pack(folder, archive)
    print(f"{archive}: {archive.stat().st_size:,} bytes")


def _ignore_not_compared(_: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if name.endswith(NOT_COMPARED)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=pathlib.Path, required=True, help=f"a checkout of commit {COMMIT}")
    parser.add_argument("--output", type=pathlib.Path, required=True, help="the archive to write")
    args = parser.parse_args()
    make(args.repository, args.output)


if __name__ == "__main__":
    main()
