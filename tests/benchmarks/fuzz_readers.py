"""Fuzzer of every reader of files: damaged copies of valid files are opened, or refused with one clear line.

    python tests/benchmarks/fuzz_readers.py                        all readers, 2,000 inputs each: some minutes
    python tests/benchmarks/fuzz_readers.py --inputs=200 manifest squad

Prints a table: reader, inputs that opened, inputs refused with one line, inputs with a traceback. Input n of a reader
depends on the seed, the reader's name and n alone. Exits with 1 if there was a traceback; the first one of each reader
is printed with its n, and `--only=N` repeats that input alone.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import dataclasses
import gzip
import io
import json
import os
import pathlib
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

import exported
import invented_corpus
import saved_run

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files, tfrecord
from electramed_jax.common.tracking import metrics_writer
from electramed_jax.config.finetune import FinetuneConfig
from electramed_jax.data.corpus import corpus_dir, eval_texts
from electramed_jax.data.dataset import dataset, manifest, verify
from electramed_jax.data.download import mirror_listing
from electramed_jax.data.download.download_dir import DownloadDir
from electramed_jax.data.readers import reader as documents_reader
from electramed_jax.data.synthetic import pubmed_xml
from electramed_jax.data.tokenizer import vocab
from electramed_jax.data.tokenizer.tokenizer import Tokenizer
from electramed_jax.finetune import card_scores, load_model, postprocess_config, results
from electramed_jax.finetune.ner import conll
from electramed_jax.finetune.qa import splits
from electramed_jax.finetune.task import result_files
from electramed_jax.finetune.task.model_spec import ModelSpec
from electramed_jax.finetune.task.task import Head
from electramed_jax.finetune.text_classification import tables
from electramed_jax.finetune.text_classification import task as text_task
from electramed_jax.finetune.training import workdir as finetune_workdir
from electramed_jax.hf import convert, finetuned
from electramed_jax.hf.format import tf_checkpoint
from electramed_jax.hf.format.mapping import TOKEN
from electramed_jax.pretrain import history
from electramed_jax.pretrain.alerts import find_alerts
from electramed_jax.report import page
from electramed_jax.report import run as report_run
from electramed_jax.training import checkpoint

OPENED, REFUSED, TRACEBACK = "opened", "one line", "traceback"
MAX_LINE = 1100  # characters of a message that is still clear
BIG = "\x00BIG"  # replaced in the text by numbers and nesting that Python's JSON cannot write
NESTED = "\x00NESTED"
HOSTILE_VALUES = (
    None, True, False, 0, -1, 1, 3.5, -2.5, 1e308, 10**18, 10**30, -(10**30), 10**400, float("nan"), float("inf"), "", " ",
    "x", "x" * 3000, "\ud800", "\x00", "../../x", "/etc/passwd", "1", [], {}, [[]], [1, 2], {"a": 1}, [None], BIG, NESTED,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Reader:
    """A reader and a valid file.

    Attributes:
      name: of the reader.
      path: the valid file; mutated copies take its place while they are read.
      read: opens the file.
      compressed: the file is gzip; mutations are of its content or of the compressed bytes.
    """

    name: str
    path: pathlib.Path
    read: Callable[[], Any]
    compressed: bool = False


# ---- mutations -------------------------------------------------------------------------------------


def mutate(data: bytes, rng: random.Random, compressed: bool) -> bytes:
    """Returns a damaged copy: of the JSON values where the file is JSON, else of the bytes."""
    if compressed and rng.random() < 0.7:
        return gzip.compress(mutate(gzip.decompress(data), rng, False), 1, mtime=0)
    if rng.random() < 0.6 and (changed := mutate_json(data, rng)) is not None:
        return changed
    return mutate_bytes(data, rng)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Returns a copy with one to four changes: cut, flipped, removed, repeated or inserted bytes."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(changed) + 1)
        length = rng.choice((1, 2, 8, 64, 1024))
        kind = rng.randrange(7)
        if kind == 0:
            del changed[at:]
        elif kind == 1 and changed:
            changed[at % len(changed)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del changed[at : at + length]
        elif kind == 3:
            changed[at:at] = changed[at : at + length]
        elif kind == 4:
            changed[at:at] = rng.randbytes(length)
        elif kind == 5:
            changed[at:at] = rng.choice(
                (b"\n", b"\r", b"\x00", b"\xff\xfe", b"\xed\xa0\x80", b'"', b"[" * 3000, b"9" * 5000)
            )
        else:
            other = rng.randrange(len(changed) + 1)
            changed[at : at + length] = changed[other : other + length]
    return bytes(changed)


def mutate_json(data: bytes, rng: random.Random) -> bytes | None:
    """Returns a copy with one changed value or key; None if the file is not JSON, or one JSON value a line."""
    try:
        return write_json(change_value(json.loads(data), rng), rng)
    except ValueError:
        lines = data.split(b"\n")
        number = rng.randrange(len(lines))
        try:
            lines[number] = write_json(change_value(json.loads(lines[number]), rng), rng)
        except ValueError:
            return None
        return b"\n".join(lines)


def change_value(value: Any, rng: random.Random) -> Any:
    """Replaces, removes, adds or renames at a random place of a JSON value."""
    value = copy.deepcopy(value)
    places = list(containers(value))
    if not places or rng.random() < 0.03:
        return rng.choice(HOSTILE_VALUES)
    container = rng.choice(places)
    key = rng.choice(list(container) if isinstance(container, dict) else range(len(container)))
    kind = rng.randrange(8)
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        container[rng.choice(("surprise", "", "\ud800", "0", "a.b"))] = rng.choice(HOSTILE_VALUES)
    elif kind == 2 and isinstance(container, dict):
        container[f"{key}x"] = container.pop(key)
    elif kind == 3:
        container[key] = [container[key]]
    elif kind == 4 and isinstance(container, list):
        container.append(container[key])
    else:
        container[key] = rng.choice(HOSTILE_VALUES)
    return value


def containers(value: Any) -> Any:
    if isinstance(value, (dict, list)):
        if value:
            yield value
        for inner in value.values() if isinstance(value, dict) else value:
            yield from containers(inner)


def write_json(value: Any, rng: random.Random) -> bytes:
    nested = rng.choice(("[" * 300 + "]" * 300, '{"a":' * 20_000, "[" * 150 + "]" * 150))
    text = json.dumps(value).replace(json.dumps(BIG), "9" * rng.choice((400, 5000))).replace(json.dumps(NESTED), nested)
    return text.encode()


# ---- the readers -----------------------------------------------------------------------------------


def make_readers(folder: pathlib.Path) -> list[Reader]:
    """Writes a valid file of each kind; returns the readers."""
    with contextlib.redirect_stderr(io.StringIO()):
        return [
            *pretraining_readers(folder),
            *hugging_face_readers(folder / "hf"),
            *finetuning_readers(folder / "finetuned"),
            *corpus_readers(folder / "corpora"),
            *document_readers(folder / "inputs"),
        ]


def pretraining_readers(folder: pathlib.Path) -> list[Reader]:
    packed, workdir = pathlib.Path(saved_run.pack(folder)), folder / "run"
    saved_run.save(str(packed), workdir)
    entries = [
        {"step": step, "split": split, "loss": 20.5, "generator_loss": 6.1, "generator_accuracy": 0.1,
         "discriminator_auc": 0.6, "fill_fraction": 0.9, "step_seconds": 0.1, "tokens_per_second": 1e4}
        for step in range(1, 12) for split in ("train", "validation")
    ]  # fmt: skip
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    settings = json.loads((workdir / "config.json").read_text())
    start = {
        "step": 0, "time": "2026-01-02T03:04:05+00:00", "devices": 8, "device_kind": "TPU v5 lite", "processes": 2,
        "version": "1.0", "commit": "0123abcd", "jax": "0.10.2", "packages": {"jax": "0.10.2", "python": "3.11.7"},
        "hosts": ["a", "b"], "command": "electramed pretrain", "settings": settings, "changed": {},
        "dataset": {"train": "ab" * 32, "validation": "cd" * 32},
    }  # fmt: skip
    changed = {"optimizer.learning_rate": [5e-4, 1e-4]}
    lines = [start, {"end": "preempted", "step": 6, "time": "2026-01-02T04:04:05+00:00"}]
    lines += [start | {"step": 6, "changed": changed}]
    (workdir / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    compiled = {
        "topology": "v5e:4x4", "chips": 16, "rows_per_chip": 16.0, "row_length": 512, "fits": True,
        "peak_bytes": 3 << 29, "available_bytes": 16 << 30, "estimated_step_seconds": 0.13,
    }  # fmt: skip
    (workdir / "compile.json").write_text(json.dumps(compiled))
    counters = {"step": 3, "train_seconds": 1.5, "tokens": 96.0, "fingerprint": 7, "pending_sums": {}}
    counters["pending_sums"] = dict.fromkeys(checkpoint.COMMON_SUMS, 1.0)
    clock = folder / "clock.json"
    clock.write_text(json.dumps(counters))
    shard = next(packed.glob("*train.tfrecord*"))
    documents = folder / "documents"
    part = documents / "train" / "part-00000.jsonl.gz"
    return [
        Reader("manifest.json", packed / "manifest.json", lambda: manifest.read_manifest(str(packed))),
        Reader("dataset.json", workdir / "dataset.json", lambda: report_of(workdir)),
        Reader("vocab.txt", packed / "vocab.txt", lambda: Tokenizer(str(packed / "vocab.txt"))),
        Reader("shard", shard, lambda: read_rows(packed, shard)),
        Reader("config.json of pre-training", workdir / "config.json", lambda: report_of(workdir)),
        Reader("metrics.jsonl", workdir / "metrics.jsonl", lambda: resume_metrics(workdir)),
        Reader("history.jsonl", workdir / "history.jsonl", lambda: history_of(workdir)),
        Reader("compile.json", workdir / "compile.json", lambda: report_of(workdir)),
        Reader("clock of a checkpoint", clock, lambda: check_counters(clock)),
        Reader("documents.json", documents / "documents.json", lambda: corpus_dir.read_documents_info(str(documents))),
        Reader("part of documents", part, lambda: list(corpus_dir.read_part(str(part))), compressed=True),
    ]


def report_of(workdir: pathlib.Path) -> Any:
    """Reads a workdir as `electramed report` does; renders what needs no figure."""
    runs = report_run.read_runs([str(workdir)])
    sections = [page.overview_section(runs), page.alerts_section(runs), page.speed_section(runs, [])]
    sections += [page.data_section(runs, ""), page.compile_section(runs), page.settings_section(runs)]
    return page.render_page([run.name for run in runs], sections, {})


def history_of(workdir: pathlib.Path) -> Any:
    """Reads history.jsonl as the resume, the report and the card do."""
    past = history.read_history(str(workdir))
    phases = past.phases()
    history.changed_during_run(phases)
    history.describe_by_phase(phases, past.config, lambda config, code: {"rate": config.optimizer.learning_rate})
    past.device_hours()
    return report_of(workdir)


def read_rows(packed: pathlib.Path, shard: pathlib.Path) -> Any:
    opened = dataset.open_dataset(str(packed))
    verify.verify_shards(opened)
    (read,) = opened.manifests
    return tfrecord.RowFile(str(shard), read.row_length, read.dtype)[:3]


def resume_metrics(workdir: pathlib.Path) -> Any:
    past = history.read_history(str(workdir))
    find_alerts(past.entries, past.config, history.read_manifest(str(workdir)))
    with metrics_writer.MetricsWriter(str(workdir), resumed_step=7) as log:
        log.write(8, "train", {"loss": 1.0})
    return report_of(workdir)


def check_counters(path: pathlib.Path) -> None:
    """Checks counters after orbax has read them with Python's JSON; it turns all errors of that into damage."""
    try:
        counters = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError("not JSON") from error
    try:
        checkpoint.check_counters(counters, 3, to_resume=True)
    except checkpoint.CorruptCheckpointError as error:
        raise UserError(str(error)) from error


def hugging_face_readers(folder: pathlib.Path) -> list[Reader]:
    tagger = pathlib.Path(exported.exported(str(folder / "tagger"), "ner"))
    no_vocab = pathlib.Path(exported.exported(str(folder / "no_vocab"), "ner"))
    (no_vocab / "vocab.txt").unlink()
    split = pathlib.Path(exported.exported(str(folder / "split"), "relations"))
    (split / "model.safetensors").rename(split / "part.safetensors")
    names = convert_names(split / "part.safetensors")
    index = split / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, "part.safetensors")}))
    return [
        Reader("config.json of an export", tagger / "config.json", lambda: open_finetuned(tagger)),
        Reader("model.safetensors", tagger / "model.safetensors", lambda: open_finetuned(tagger)),
        Reader("tokenizer_config.json", tagger / "tokenizer_config.json", lambda: open_finetuned(tagger)),
        Reader("tokenizer.json", tagger / "tokenizer.json", lambda: open_finetuned(tagger)),
        Reader("tokenizer.json without vocab.txt", no_vocab / "tokenizer.json", lambda: open_finetuned(no_vocab)),
        Reader("model.safetensors.index.json", index, lambda: finetuned.load_finetuned(str(split))),
        Reader("config.json as an encoder", split / "config.json", lambda: convert.model_dir.read_encoder(str(split))),
        *tensorflow_readers(folder / "tf1"),
    ]


def tensorflow_readers(folder: pathlib.Path) -> list[Reader]:
    """Returns readers of the three files of a checkpoint as TensorFlow 1 writes it; none without TensorFlow."""
    try:
        import tensorflow as tf
    except ImportError:
        return []
    names = {
        "electra/embeddings/word_embeddings": (40, 8),
        "electra/encoder/layer_0/intermediate/dense/kernel": (8, 16),
        "discriminator_predictions/dense/kernel": (8, 8),
    }
    folder.mkdir()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [tf.compat.v1.get_variable(name, shape) for name, shape in names.items()]
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(variables).save(session, str(folder / "model.ckpt"), global_step=3)
    return [
        Reader(f"TF1 checkpoint: {path.name}", path, lambda: open_tf_checkpoint(folder))
        for path in sorted(folder.iterdir())
        if path.suffix != ".meta"
    ]


def open_tf_checkpoint(folder: pathlib.Path) -> Any:
    prefix = tf_checkpoint.find_checkpoint(str(folder))
    if prefix is None:
        raise UserError("no checkpoint")
    return tf_checkpoint.to_hf_tensors(tf_checkpoint.read_variables(prefix))


def convert_names(path: pathlib.Path) -> list[str]:
    from safetensors import deserialize

    return [name for name, _ in deserialize(path.read_bytes())]


def open_finetuned(folder: pathlib.Path) -> Any:
    model = finetuned.load_finetuned(str(folder))
    head = Head(model.kind, model.labels, model.loss)
    return postprocess_config.from_json(model.postprocess, head, model.model.max_positions, str(folder))


def finetuning_readers(folder: pathlib.Path) -> list[Reader]:
    folder.mkdir()
    encoder = invented_corpus.tiny_init_encoder()
    history_of = [{"step": 10, "epoch": 1.0, "f1": 80.0, "precision": 81.0}]
    scores = {"seed": 0, "best_step": 10, "best_epoch": 1.0, "steps": 10, "train_seconds": 2.0, "tokens": 90.0,
              "dev": {"f1": 80.0}, "test": {"f1": 79.0}, "history": history_of}  # fmt: skip
    data = {
        "files": {split: {"path": f"{split}.txt", "bytes": 3, "sha256": "ab" * 32} for split in ("train", "dev", "test")},
        "sizes": {split: {"sentences": 3} for split in ("train", "dev", "test")},
        "labels": ["O", "B-X"],
    }  # fmt: skip
    mean = {"f1": {"mean": 80.0, "standard_deviation": 0.0}}
    published = [{"model": "m", "metric": "f1", "value": 90.0, "source": "s"}]
    contents = {
        "results.json": {
            "task": "ner", "variant": "v", "published": published, "data": data, "encoder": "e", "primary": "f1",
            "seeds": [0], "seeds_wanted": 1, "scores": {"dev": mean, "test": mean}, "runs": [scores],
            "config": dataclasses.asdict(FinetuneConfig()), "code": "c",
        },
        "scores.json": scores,
        "data.json": data,
        "config.json": dataclasses.asdict(FinetuneConfig()),
        "task.json": dataclasses.asdict(
            ModelSpec("ner", Head(TOKEN, ("O", "B-X")), 32, encoder.model, vocab.special_ids(encoder.tokens), True, (), "e")
        ),
    }  # fmt: skip
    for name, value in contents.items():
        (folder / name).write_text(json.dumps(value))
    return [
        Reader("results.json", folder / "results.json", lambda: describe_results(folder)),
        Reader("scores.json", folder / "scores.json", lambda: read_scores(folder)),
        Reader("data.json", folder / "data.json", lambda: settings_of(folder)),
        Reader("config.json of fine-tuning", folder / "config.json", lambda: settings_of(folder)),
        Reader("task.json", folder / "task.json", lambda: finetune_workdir.read_model_spec(str(folder))),
    ]


def describe_results(folder: pathlib.Path) -> Any:
    """Uses results.json as the card, results.md and the report do."""
    read = load_model.read_results(str(folder))
    run = read["runs"][0]
    results.card_data(read, run), results.dev_curve(read, run), results.to_markdown(read)
    card_scores.scores_table([read]), card_scores.hub_metadata("m", [read])
    return page.downstream_section({"run": read}) + page.finetuning_section({"run": read}, [])


def read_scores(folder: pathlib.Path) -> Any:
    return result_files.read_scores(str(folder / "scores.json"), ("dev", "test"), "f1")


def settings_of(folder: pathlib.Path) -> Any:
    settings = finetune_workdir.read_config(str(folder))
    data = result_files.read_data_summary(str(folder / "data.json"))
    return postprocess_config.from_run("qa", 32, settings, data)


def corpus_readers(folder: pathlib.Path) -> list[Reader]:
    folder.mkdir()
    answer = {"text": "renin", "answer_start": 8}
    question = {"id": "q1", "question": "What?", "answers": [answer], "is_impossible": False}
    squad = {"data": [{"title": "t", "paragraphs": [{"context": "It cuts renin.", "qas": [question]}]}]}
    factoid = {"id": "f", "type": "factoid", "body": "What?", "exact_answer": [["renin", "REN"]],
               "snippets": [{"text": "Renin cuts."}]}  # fmt: skip
    rows = [{"text": f"drug {n} cures", "label": "yes" if n % 2 else "no"} for n in range(6)]
    scored = [{"sentence1": f"drug {n}", "sentence2": "gene", "score": n / 2} for n in range(6)]
    listed = [{"text": f"drug {n}", "labels": ["a", "b"]} for n in range(6)]
    texts = {
        "squad.json": json.dumps(squad),
        "bioasq.json": json.dumps({"questions": [factoid, factoid | {"id": "g"}]}),
        "labels.jsonl": "\n".join(map(json.dumps, rows)),
        "scores.jsonl": "\n".join(map(json.dumps, scored)),
        "multilabel.jsonl": "\n".join(map(json.dumps, listed)),
        "table.tsv": "sentence\tlabel\n" + "\n".join(f"drug {n}\t{n % 2}" for n in range(6)),
        "table.csv": 'sentence,label\n"drug, one",a\n"drug ""two""",b\ndrug,a\n',
        "words.txt": invented_corpus.conll(8),
        "eval.json": json.dumps(squad | {"pmid": "12345"}),
        "eval.tsv": "10064839.T1.T5\tThe drug inhibits the gene of a cell.\tCPR:4\n" * 3,
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    squad_gz = folder / "squad.json.gz"
    squad_gz.write_bytes(gzip.compress(json.dumps(squad).encode(), mtime=0))
    path = folder.joinpath
    kinds = {"labels.jsonl": text_task.CLASSIFICATION, "scores.jsonl": text_task.SIMILARITY,
             "multilabel.jsonl": text_task.MULTILABEL, "table.tsv": text_task.RELATIONS,
             "table.csv": text_task.CLASSIFICATION}  # fmt: skip
    return [
        *(
            Reader(name, path(name), lambda name=name: splits.read_split([str(path(name))], for_training=True), gz)
            for name, gz in (("squad.json", False), ("squad.json.gz", True), ("bioasq.json", False))
        ),
        *(
            Reader(name, path(name), lambda name=name, kind=kind: text_of(path(name), kind))
            for name, kind in kinds.items()
        ),
        Reader("CoNLL", path("words.txt"), lambda: conll.read_sentences(str(path("words.txt")))),
        *(
            Reader(f"--decontaminate {name}", path(name), lambda name=name: eval_texts.read_passages(str(path(name))))
            for name in ("eval.json", "eval.tsv")
        ),
    ]


def text_of(path: pathlib.Path, kind: str) -> Any:
    corpus = text_task.read_corpus({"train": str(path)}, tables.DEFAULT_COLUMNS, 0.3)
    tokenizer = Tokenizer.from_tokens(invented_corpus.TOKENS, True)
    return text_task.TextClassificationTask(kind, corpus, tokenizer, max_length=16, negative="0")


def document_readers(folder: pathlib.Path) -> list[Reader]:
    folder.mkdir()
    (xml,) = pubmed_xml.write_pubmed_xml(str(folder / "xml"), articles=5, num_files=1)
    (folder / "text.jsonl").write_text("\n".join(json.dumps({"text": f"Drug {n}.", "pmid": n}) for n in range(5)))
    (folder / "text.txt").write_text("A drug.\n\nAnother drug.\n")
    (folder / "download").mkdir()
    entry = {"md5": "0" * 32, "bytes": 3, "mtime_ns": 5, "listed": "2025 1M"}
    record = {"format_version": 1, "files": {"pubmed25n0001.xml.gz": entry}}
    (folder / "download" / "download.json").write_text(json.dumps(record))
    (folder / "index.html").write_text(
        '<a href="pubmed25n0001.xml.gz">pubmed25n0001.xml.gz</a> 2025-01-10 14:04 19M\n' * 2
    )
    (folder / "request.json").write_text('{"inputs": [["a", 3]]}')
    listed = mirror_listing.ListedFile("pubmed25n0001.xml.gz", 2025, 1, "u", "2025 1M", 3)
    url = "https://example.org/baseline/"
    return [
        Reader("PubMed XML", pathlib.Path(xml), lambda: read_documents(xml), xml.endswith(".gz")),
        Reader("documents .jsonl", folder / "text.jsonl", lambda: read_documents(folder / "text.jsonl")),
        Reader("documents .txt", folder / "text.txt", lambda: read_documents(folder / "text.txt")),
        Reader(
            "download.json",
            folder / "download" / "download.json",
            lambda: DownloadDir(str(folder / "download")).has(listed),
        ),
        Reader(
            "listing of the server",
            folder / "index.html",
            lambda: mirror_listing.parse_listing((folder / "index.html").read_bytes(), url),
        ),
        Reader("any JSON", folder / "request.json", lambda: files.read_json(folder / "request.json")),
    ]


def read_documents(path: Any) -> Any:
    return list(documents_reader.read_documents(str(path), collections.Counter()))


# ---- the table -------------------------------------------------------------------------------------


def run_reader(one: Reader, inputs: range, seed: int) -> tuple[collections.Counter[str], str]:
    """Reads mutated copies; returns the counts of outcomes, and the first traceback with its number."""
    original = one.path.read_bytes()
    counts: collections.Counter[str] = collections.Counter()
    first = ""
    try:
        for number in inputs:
            rng = random.Random(f"{seed} {one.name} {number}")
            one.path.write_bytes(mutate(original, rng, one.compressed))
            with contextlib.redirect_stderr(io.StringIO()):
                outcome, text = attempt(one.read)
            counts[outcome] += 1
            if outcome == TRACEBACK:
                first = first or f"{one.name}, input {number}:\n{text}"
    finally:
        one.path.write_bytes(original)
    return counts, first


def attempt(read: Callable[[], Any]) -> tuple[str, str]:
    """Returns the outcome of reading, and the traceback if there is one."""
    try:
        read()
    except UserError as error:
        return (
            (REFUSED, "") if len(str(error)) <= MAX_LINE else (TRACEBACK, f"a line of {len(str(error)):,} characters")
        )
    except Exception:  # noqa: BLE001 every other exception is what the fuzzer looks for
        return TRACEBACK, traceback.format_exc(limit=-6)
    return OPENED, ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="*", help="parts of the names of readers (default: all)")
    parser.add_argument("--inputs", type=int, default=2000, help="inputs of each reader (default 2,000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the mutations (default 0)")
    parser.add_argument("--only", type=int, metavar="N", help="input N alone")
    args = parser.parse_args()
    inputs = range(args.inputs) if args.only is None else range(args.only, args.only + 1)
    tracebacks = []
    with tempfile.TemporaryDirectory() as folder:
        chosen = [
            one
            for one in make_readers(pathlib.Path(folder))
            if not args.readers or any(part in one.name for part in args.readers)
        ]
        print(f"{'reader':<34}{OPENED:>10}{REFUSED:>10}{TRACEBACK:>11}{'seconds':>9}")
        totals: collections.Counter[str] = collections.Counter()
        for one in chosen:
            began = time.monotonic()
            counts, first = run_reader(one, inputs, args.seed)
            totals += counts
            tracebacks += [first] if first else []
            row = f"{one.name:<34}{counts[OPENED]:>10,}{counts[REFUSED]:>10,}{counts[TRACEBACK]:>11,}"
            print(f"{row}{time.monotonic() - began:>9.1f}", flush=True)
        print(f"{'all':<34}{totals[OPENED]:>10,}{totals[REFUSED]:>10,}{totals[TRACEBACK]:>11,}")
    for text in tracebacks:
        print(f"\n{text}")
    return int(bool(tracebacks))


if __name__ == "__main__":
    sys.exit(main())
