"""Files through a model: what each kind of model reads and writes, in batches, with progress."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from electramed_jax.common import console
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.data.readers import reader
from electramed_jax.data.readers.document import Document, PubmedOptions
from electramed_jax.finetune.ner import entity_formats
from electramed_jax.finetune.ner.entity_formats import AnnotatedDocument
from electramed_jax.finetune.predictor import Predictor
from electramed_jax.finetune.qa import bioasq, splits
from electramed_jax.finetune.qa.splits import BIOASQ, SQUAD
from electramed_jax.finetune.qa.squad import Question
from electramed_jax.finetune.task import split_files
from electramed_jax.finetune.text_classification import inputs, tables
from electramed_jax.finetune.text_classification.tables import Columns, Record
from electramed_jax.hf.format.mapping import SEQUENCE, SPAN, TOKEN

FORMATS = {
    TOKEN: entity_formats.FORMATS,
    SEQUENCE: (entity_formats.JSONL,),
    SPAN: (entity_formats.JSONL, SQUAD, BIOASQ),
}
_DOCUMENTS = (".txt", ".jsonl", ".xml", ".txt.gz", ".jsonl.gz", ".xml.gz")
_TABLES = tuple(f".{ending}" for ending in tables.ENDINGS)
ENDINGS = {
    TOKEN: _DOCUMENTS,
    SEQUENCE: tuple(dict.fromkeys(_TABLES + tuple(e for e in _DOCUMENTS if not e.startswith(".jsonl")))),
    SPAN: (".json", ".json.gz"),
}
ITEM_NAMES = {TOKEN: "documents", SEQUENCE: "texts", SPAN: "questions and passages"}  # what a step of progress is
_READING = PubmedOptions(titles_alone=True)
_CHARACTERS_A_TOKEN = 4  # about
_BATCHES_AT_ONCE = 4
_ANSWERS_SHOWN = 5
Item = TypeVar("Item")


@dataclasses.dataclass
class PredictionStats:
    """What went through, and what was left out of damaged files, by reason."""

    read: int = 0
    found: int = 0
    dropped: collections.Counter = dataclasses.field(default_factory=collections.Counter)


def check_files(paths: Sequence[str], kind: str) -> None:
    """Raises UserError for the first file that a model with such a head does not read."""
    for path in paths:
        if not path.lower().endswith(ENDINGS[kind]):
            asked = {TOKEN: "entities in texts", SEQUENCE: "labels of texts", SPAN: "answers to questions"}[kind]
            raise UserError(f"{path}: the model gives {asked}; wanted a file that ends in {', '.join(ENDINGS[kind])}")


def predict_files(
    predictor: Predictor,
    paths: Sequence[str],
    form: str,
    account: PredictionStats,
    *,
    batch_tokens: int,
    columns: Columns = Columns(),
    strict: bool = False,
) -> Iterator[str]:
    """The pieces of the output, as they come.

    Args:
      form: one of `FORMATS` of the model's head.
      account: filled.
      batch_tokens: of one step, about: so much text is gathered that several are full.
      columns: of tables.
      strict: stop at damaged documents instead of leaving them out.

    Raises:
      UserError: names file and line of what cannot be read.
    """
    characters = batch_tokens * _CHARACTERS_A_TOKEN * _BATCHES_AT_ONCE
    kind = predictor.model.head.kind
    with console.progress(None, ITEM_NAMES[kind], "predicting") as advance:
        if kind == TOKEN:
            given = _documents(_counted(paths, _count_documents, advance), account, strict)
            marked = _mark(predictor, given, account, characters, advance)
            yield from entity_formats.get_writer(form)(marked, predictor.model.source)
        elif kind == SEQUENCE:
            counted = _counted(paths, lambda path: _count_rows(path, columns), advance)
            rows = _rows(counted, len(paths) > 1, predictor, columns, account, strict)
            yield from _labels(predictor, rows, account, characters, advance)
        else:
            yield from _answers(predictor, paths, form, account, characters, advance)


def _counted(paths: Sequence[str], count: Callable[[str], int], advance: Callable[..., None]) -> Iterator[str]:
    """The files, each counted before it is read, which takes a fraction of predicting; the total is what those so far
    let expect of all, by their bytes."""
    sizes = [files.size(path) for path in paths]
    held = 0
    for number, path in enumerate(paths, 1):
        held += count(path)
        advance(0, total=round(held * sum(sizes) / max(1, sum(sizes[:number]))))
        yield path


def _count_documents(path: str) -> int:
    return sum(1 for _ in reader.read_documents(path, collections.Counter(), pubmed_options=_READING))


def _count_rows(path: str, columns: Columns) -> int:
    is_table = path.lower().endswith(_TABLES)
    return len(tables.read_table(path, columns, labelled=False)[0]) if is_table else _count_documents(path)


def _mark(
    predictor: Predictor,
    given: Iterable[Document],
    account: PredictionStats,
    characters: int,
    advance: Callable[..., None],
) -> Iterator[AnnotatedDocument]:
    """Documents with their entities. Title and sections are read apart, as no entity goes from one into another."""
    for chunk in _chunks(given, lambda document: len(document.text), characters):
        parts = [(document, part) for document in chunk for part in entity_formats.passages(document)]
        found = iter(predictor.entities([part.text for _, part in parts]))
        for document in chunk:
            of_document = []
            for part in entity_formats.passages(document):
                moved = [one._replace(start=one.start + part.start, stop=one.stop + part.start) for one in next(found)]
                of_document.append((part, moved))
                account.found += len(moved)
            account.read += 1
            yield document, of_document
        advance(len(chunk))


def _documents(paths: Iterable[str], account: PredictionStats, strict: bool) -> Iterator[Document]:
    for path in paths:
        drops: collections.Counter = collections.Counter()
        number = 0
        for document in reader.read_documents(path, drops, strict, _READING):
            number += 1
            yield document
        account.dropped.update(drops)
        if not number:
            why = ", ".join(f"{reason} {count:,}" for reason, count in drops.items()) or "it is empty"
            raise UserError(f"{path}: no document in it ({why}); {_wanted(path)}")


def _wanted(path: str) -> str:
    if ".jsonl" in path:
        return 'wanted an object a line with "text"; --strict names the first line that is none'
    return "wanted PubMed's XML" if ".xml" in path else "wanted texts with empty lines between"


def _rows(
    paths: Iterable[str], several: bool, predictor: Predictor, columns: Columns, account: PredictionStats, strict: bool
) -> Iterator[tuple[dict[str, Any], Record]]:
    """(what names a row, the row)."""
    for path in paths:
        if path.lower().endswith(_TABLES):
            records, _ = tables.read_table(path, columns, labelled=False)
            names = inputs.placeholder_names(records)

            def reject(line: int, why: str, path: str = path) -> None:
                split_files.reject_line(path, line, f"{why}; the model was trained on other placeholders, or on none")

            inputs.check_placeholders(records, names, predictor.model.tokenizer, reject)
            for record in records:
                yield ({"file": path} if several else {}) | {"line": record.line}, record
        else:
            for document in _documents([path], account, strict):
                pmid = {} if document.pmid is None else {"pmid": document.pmid}
                yield {"id": document.id, **pmid}, Record(document.text, "", "", 0)


def _labels(
    predictor: Predictor,
    rows: Iterable[tuple[dict[str, Any], Record]],
    account: PredictionStats,
    characters: int,
    advance: Callable[..., None],
) -> Iterator[str]:
    for chunk in _chunks(rows, lambda row: len(row[1].text) + len(row[1].second), characters):
        for (named, _), said in zip(chunk, predictor.labels([record for _, record in chunk]), strict=True):
            yield json.dumps(named | _rounded(said), ensure_ascii=False) + "\n"
        account.read += len(chunk)
        account.found += len(chunk)
        advance(len(chunk))


def _answers(
    predictor: Predictor,
    paths: Sequence[str],
    form: str,
    account: PredictionStats,
    characters: int,
    advance: Callable[..., None],
) -> Iterator[str]:
    asked = splits.read_split(paths, for_training=False, labelled=False).questions
    threshold = predictor.model.postprocess.null_threshold
    advance(0, total=len(asked))
    pairs = []
    for chunk in _chunks(asked, lambda question: len(question.context), characters):
        found = list(zip(chunk, predictor.answers(chunk), strict=True))
        account.read += len(chunk)
        account.found += sum(bool(answers.text(threshold)) for _, answers in found)
        if form == entity_formats.JSONL:
            yield from (_answer_line(question, answers, threshold) for question, answers in found)
        else:
            pairs += found
        advance(len(chunk))
    if form == SQUAD:
        texts = {question.id: answers.text(threshold) for question, answers in pairs}
        yield json.dumps(texts, ensure_ascii=False, indent=1) + "\n"
    elif form == BIOASQ:
        merged = {number: [text for text, _ in best] for number, best in bioasq.merge_by_question(pairs).items()}
        yield json.dumps(bioasq.to_submission(merged), ensure_ascii=False, indent=1) + "\n"


def _answer_line(question: Question, answers: Any, threshold: float | None) -> str:
    best = [
        {"text": c.text, "start": c.start, "end": c.stop, "probability": c.probability}
        for c in answers.candidates[:_ANSWERS_SHOWN]
    ]
    said = {"id": question.id, "answer": answers.text(threshold), "answers": [_rounded(one) for one in best]}
    return json.dumps(said, ensure_ascii=False) + "\n"


def _rounded(values: Any) -> Any:
    """Six digits behind the point are more than float32 has to say."""
    if isinstance(values, dict):
        return {name: _rounded(value) for name, value in values.items()}
    return round(values, 6) if isinstance(values, float) else values


def _chunks(items: Iterable[Item], length: Callable[[Item], int], enough: int) -> Iterator[list[Item]]:
    """Runs of items of about so many characters together."""
    chunk: list[Item] = []
    held = 0
    for item in items:
        chunk.append(item)
        held += length(item)
        if held >= enough:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk
