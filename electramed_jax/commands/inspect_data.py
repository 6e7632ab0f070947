"""Shows datasets, documents, inputs, corpora and vocabularies, for `electramed inspect`."""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from electramed_jax.common import console, markdown
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files

SHOWN_CHARACTERS = 1000  # of a document
TABLE_ROWS = 20  # of counts


def say_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints an aligned table; nothing without rows."""
    if rows:
        for line in markdown.align(head, rows):
            console.say(line)


def say_facts(facts: Mapping[str, Any]) -> None:
    """Prints a line for each fact, its name in front."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        console.say(f"{name:<{width}}  {markdown.cell(value) if isinstance(value, int | float) else value}")


def show_packed(folder: str, args: argparse.Namespace, shard: str | None = None) -> dict[str, Any]:
    """Shows the splits of a packed dataset, and the first rows of a shard (None: the first one of the split)."""
    from electramed_jax.common.storage.tfrecord import RowFile
    from electramed_jax.data.dataset import manifest, verify
    from electramed_jax.data.dataset.dataset import Dataset
    from electramed_jax.data.tokenizer import vocab
    from electramed_jax.data.tokenizer.tokenizer import Tokenizer

    packed = manifest.read_manifest(folder)
    if args.verify:
        verify.verify_shards(Dataset((folder,), (packed,)))
        console.say("the SHA-256 of every shard equals that of the manifest")
    console.say(f"{folder}: packed rows of {packed.row_length} tokens, vocabulary of {packed.vocab_size:,}")
    say_table(
        ["split", "shards", "rows", "tokens", "documents", "full"],
        [
            [name, len(split.shards), split.rows, split.tokens, split.documents, f"{split.fill_fraction:.2%}"]
            for name, split in packed.splits.items()
        ],
    )
    if shard is None:
        if args.split not in packed.splits:
            raise UserError(f"split {args.split!r}: not in {folder}; it has {', '.join(packed.splits)}")
        shards = packed.splits[args.split].shards
        shard = shards[0].file if shards else None
    shown = []
    if shard is not None:
        rows = RowFile(files.join(folder, shard), packed.row_length, packed.dtype)
        tokenizer = Tokenizer(files.join(folder, vocab.VOCAB_FILE), packed.lower_case, packed.keep_accents)
        for number, row in enumerate(rows[: args.rows]):
            shown.append(tokenizer.decode(row[row != packed.special.pad]))
            console.say(f"{shard} row {number}: {shown[-1]}")
    return {
        "kind": "packed",
        "row_length": packed.row_length,
        "vocab_size": packed.vocab_size,
        "splits": {name: split.rows for name, split in packed.splits.items()},
        "rows": shown,
    }


def show_documents(folder: str, args: argparse.Namespace) -> dict[str, Any]:
    """Shows the splits of a documents folder, what was dropped, and the first documents of a split."""
    from electramed_jax.data.corpus import corpus_dir

    info = corpus_dir.read_documents_info(folder)
    if args.split not in corpus_dir.SPLITS:
        raise UserError(f"split {args.split!r}: wanted one of {', '.join(corpus_dir.SPLITS)}")
    say_table(
        ["split", "documents", "bytes"],
        [[split, counts["documents"], counts["bytes"]] for split, counts in info["splits"].items()],
    )
    _say_counts(info["dropped"] | info["repaired"])
    parts = (corpus_dir.part_path(folder, args.split, number) for number in range(len(info["inputs"])))
    shown = _show_documents((document for part in parts for document in corpus_dir.read_part(part)), args.rows)
    return {"kind": "documents", "splits": info["splits"], "rows": shown}


def show_download(folder: str, args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001 the signature of FOLDERS
    """Shows how many files of a download are complete."""
    from electramed_jax.data.download import download_dir

    record = files.read_json(files.join(folder, download_dir.RECORD), dict[str, Any])
    found = {name: entry for name, entry in record.get("files", {}).items() if isinstance(entry, dict)}
    facts = {"kind": "download", "files": len(found), "bytes": sum(int(one.get("bytes", 0)) for one in found.values())}
    say_facts({"folder": folder} | facts)
    return facts


def show_corpus(folder: str, args: argparse.Namespace) -> dict[str, Any]:  # noqa: ARG001 the signature of FOLDERS
    """Shows the splits of a prepared corpus for fine-tuning."""
    from electramed_jax.finetune.corpora.prepare import RECORD_FILE

    record = files.read_json(files.join(folder, RECORD_FILE), dict[str, Any])
    say_facts({"corpus": record.get("corpus"), "licence": record.get("licence")})
    counts: dict[str, dict[str, int]] = record.get("counts", {})
    kinds = list(dict.fromkeys(kind for split in counts.values() for kind in split))
    say_table(["split", *kinds], [[name, *(split.get(kind, 0) for kind in kinds)] for name, split in counts.items()])
    return {"kind": "corpus", "corpus": record.get("corpus"), "splits": counts}


def show_corpus_files(folder: str) -> dict[str, Any] | None:
    """Shows the files of the splits of a corpus for fine-tuning; None if the folder has no training file."""
    from electramed_jax.finetune.task.split_files import NAMES

    found = {
        split: sorted(name for name in files.list_dir(folder) if name.split(".")[0] in stems)
        for split, stems in NAMES.items()
    }
    if not found["train"]:
        return None
    rows = [[split, name, files.size(files.join(folder, name))] for split, names in found.items() for name in names]
    say_table(["split", "file", "bytes"], rows)
    console.say(f"fine-tune on it: --config.task.data={folder}")
    return {"kind": "corpus", "splits": found}


def show_tfrecord(path: str) -> dict[str, Any]:
    """Shows the number and sizes of the records of a TFRecord file without a manifest."""
    from electramed_jax.common.storage.tfrecord import iterate_records

    sizes = [len(record) for record in iterate_records(path)]
    facts = {"kind": "tfrecord", "records": len(sizes), "bytes": sum(sizes), "largest record": max(sizes, default=0)}
    say_facts({"file": path} | facts)
    return facts


def is_vocabulary(path: str) -> bool:
    """Returns whether the first lines of a text file include a special token of a vocabulary."""
    from electramed_jax.data.readers.head import read_head
    from electramed_jax.data.tokenizer.vocab import SPECIAL_TOKENS

    return not set(SPECIAL_TOKENS).isdisjoint(read_head(path).lines)


def show_vocabulary(path: str) -> dict[str, Any]:
    """Shows the size of a vocabulary, its special tokens and kinds of tokens, and some of its longest tokens."""
    from electramed_jax.data.tokenizer.vocab import SPECIAL_TOKENS, read_vocab

    tokens = read_vocab(path)
    special = {token: tokens.index(token) for token in SPECIAL_TOKENS if token in tokens}
    pieces = sum(token.startswith("##") for token in tokens)
    words = [token for token in tokens if not token.startswith("##") and token not in special]
    unused = sum(token.startswith("[unused") for token in words)
    facts = {
        "tokens": len(tokens),
        "words": len(words) - unused,
        "pieces of words (##)": pieces,
        "unused": unused,
        "casing": "cased" if any(token != token.lower() for token in words if token[0] != "[") else "lower-cased",
        "special tokens": ", ".join(f"{token} {number}" for token, number in special.items()),
        "longest": ", ".join(sorted(words, key=len)[-5:]),
    }
    say_facts({"vocabulary": path} | facts)
    if missing := [token for token in SPECIAL_TOKENS if token not in special]:
        console.warn(f"warning: {path} lacks {', '.join(missing)}, which pack needs")
    return {"kind": "vocabulary", "special": special} | facts


def show_input(path: str, args: argparse.Namespace) -> dict[str, Any]:
    """Shows the format of a file that `prepare` reads, and its first documents."""
    from electramed_jax.data.readers import formats, reader
    from electramed_jax.data.readers.head import read_head

    drops: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    unusable: list[str] = []
    head = read_head(path)
    found = formats.recognize(head)
    documents = reader.read_documents(path, drops, unusable=unusable, counts=counts)
    shown = _show_documents(documents, max(1, args.rows))
    if not shown:
        reason = unusable[0] if unusable else "no document in it"
        raise UserError(f"{path}: {reason}; electramed prepare --list_formats lists what is read")
    name = found.name if found else ", ".join(counts)
    _say_counts(drops)
    console.say(
        f"{path}: {name or 'an archive'}, {files.size(path):,} bytes; electramed prepare --input {path} reads it"
    )
    return {"kind": "input", "format": name, "rows": shown, "dropped": dict(drops)}


def _show_documents(documents: Iterable[Any], rows: int) -> list[dict[str, Any]]:
    shown = []
    for document in itertools.islice(documents, max(0, rows)):
        shown.append({"id": document.id, "text": document.text})
        console.say(f"{document.id}: {document.text[:SHOWN_CHARACTERS]}")
    return shown


def _say_counts(counts: Mapping[str, int]) -> None:
    most = sorted(counts.items(), key=lambda item: -item[1])
    say_table(["dropped or repaired", "documents"], most[:TABLE_ROWS])
