"""Predictions for files: what each kind of model reads and writes, in batches, with progress."""

from __future__ import annotations

import collections
import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

from electramed_jax.common import console
from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.data.readers import reader
from electramed_jax.data.readers.document import Document, ReadOptions
from electramed_jax.finetune.ner import entity_formats
from electramed_jax.finetune.ner.entity_formats import AnnotatedDocument
from electramed_jax.finetune.predictor import Predictor
from electramed_jax.finetune.qa import bioasq, splits
from electramed_jax.finetune.qa.nbest import Answers
from electramed_jax.finetune.qa.splits import BIOASQ, SQUAD
from electramed_jax.finetune.qa.squad import Question
from electramed_jax.finetune.task import split_files
from electramed_jax.finetune.text_classification import inputs, tables
from electramed_jax.finetune.text_classification.tables import Columns, Record
from electramed_jax.hf.format.mapping import SEQUENCE, SPAN, TOKEN

# Output formats by the kind of the model's head.
FORMATS = {
    TOKEN: entity_formats.FORMATS,
    SEQUENCE: (entity_formats.JSONL,),
    SPAN: (entity_formats.JSONL, SQUAD, BIOASQ),
}
_DOCUMENTS = (".txt", ".jsonl", ".xml", ".txt.gz", ".jsonl.gz", ".xml.gz")
_TABLES = tuple(f".{ending}" for ending in tables.ENDINGS)
# Endings of the input files.
ENDINGS = {
    TOKEN: _DOCUMENTS,
    SEQUENCE: tuple(dict.fromkeys(_TABLES + _DOCUMENTS)),
    SPAN: (".json", ".json.gz"),
}
ITEM_NAMES = {TOKEN: "documents", SEQUENCE: "texts", SPAN: "questions and passages"}  # what the progress bar counts
_PREDICTS = {TOKEN: "entities in texts", SEQUENCE: "labels of texts", SPAN: "answers to questions"}
_OPTIONS = ReadOptions(titles_alone=True)
_CHARACTERS_PER_TOKEN = 4  # roughly
_BATCHES_PER_CHUNK = 4
_ANSWERS_WRITTEN = 5
Item = TypeVar("Item")
Advance = Callable[..., None]  # of a progress bar


@dataclasses.dataclass
class PredictionStats:
    """Counts of a prediction.

    Attributes:
      items: documents, texts or questions read.
      predictions: entities, labelled texts or answered questions.
      dropped: documents of damaged files left out, by reason.
    """

    items: int = 0
    predictions: int = 0
    dropped: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


def check_files(paths: Sequence[str], kind: str) -> None:
    """Raises UserError for the first file that a model with this kind of head does not read."""
    for path in paths:
        if not path.lower().endswith(ENDINGS[kind]):
            raise UserError(
                f"{path}: the model predicts {_PREDICTS[kind]}; wanted a file that ends in {', '.join(ENDINGS[kind])}"
            )


def predict_files(
    predictor: Predictor,
    paths: Sequence[str],
    output_format: str,
    stats: PredictionStats,
    *,
    batch_tokens: int,
    columns: Columns = tables.DEFAULT_COLUMNS,
    strict: bool = False,
) -> Iterator[str]:
    """Yields the output in pieces, while the files are read.

    Args:
      output_format: one of `FORMATS` of the model's head.
      stats: updated while the output is produced.
      batch_tokens: tokens of a batch; text for several batches is read at once.
      columns: columns of tables.
      strict: stop at damaged documents instead of leaving them out.

    Raises:
      UserError: a line cannot be read; names file and line.
    """
    characters = batch_tokens * _CHARACTERS_PER_TOKEN * _BATCHES_PER_CHUNK
    kind = predictor.model.head.kind
    with console.progress(None, ITEM_NAMES[kind], "predicting") as advance:
        if kind == TOKEN:
            documents = _read_documents(_with_total(paths, _count_documents, advance), stats, strict)
            annotated = _annotate(predictor, documents, stats, characters, advance)
            yield from entity_formats.get_writer(output_format)(annotated, predictor.model.source)
        elif kind == SEQUENCE:
            counted = _with_total(paths, lambda path: _count_rows(path, columns), advance)
            rows = _read_rows(counted, len(paths) > 1, predictor, columns, stats, strict)
            yield from _label_lines(predictor, rows, stats, characters, advance)
        else:
            yield from _answer_pieces(predictor, paths, output_format, stats, characters, advance)


def _with_total(paths: Sequence[str], count: Callable[[str], int], advance: Advance) -> Iterator[str]:
    """Yields the files; counts the items of each before and updates the total of the progress bar.

    Counting takes a fraction of the time of predicting. The total of all files is estimated by their bytes.
    """
    sizes = [files.size(path) for path in paths]
    counted = 0
    for number, path in enumerate(paths, 1):
        counted += count(path)
        advance(0, total=round(counted * sum(sizes) / max(1, sum(sizes[:number]))))
        yield path


def _count_documents(path: str) -> int:
    return sum(1 for _ in reader.read_documents(path, collections.Counter(), options=_OPTIONS))


def _count_rows(path: str, columns: Columns) -> int:
    is_table = path.lower().endswith(_TABLES)
    return len(tables.read_table(path, columns, labelled=False)[0]) if is_table else _count_documents(path)


def _annotate(
    predictor: Predictor, documents: Iterable[Document], stats: PredictionStats, characters: int, advance: Advance
) -> Iterator[AnnotatedDocument]:
    """Yields documents with their entities. Title and sections are separate texts: no entity spans two of them."""
    for chunk in _chunks(documents, lambda document: len(document.text), characters):
        texts = [passage.text for document in chunk for passage in entity_formats.passages(document)]
        predicted = iter(predictor.entities(texts))
        for document in chunk:
            annotated = []
            for passage in entity_formats.passages(document):
                shift = passage.start
                entities = [e._replace(start=e.start + shift, stop=e.stop + shift) for e in next(predicted)]
                annotated.append((passage, entities))
                stats.predictions += len(entities)
            stats.items += 1
            yield document, annotated
        advance(len(chunk))


def _read_documents(paths: Iterable[str], stats: PredictionStats, strict: bool) -> Iterator[Document]:
    for path in paths:
        dropped: collections.Counter[str] = collections.Counter()
        unusable: list[str] = []
        number = 0
        for document in reader.read_documents(path, dropped, strict, _OPTIONS, unusable=unusable):
            number += 1
            yield document
        stats.dropped.update(dropped)
        if not number:
            reasons = unusable or [f"{reason}: {count:,}" for reason, count in dropped.items()]
            raise UserError(f"{path}: no document in it ({', '.join(reasons)}); {_expected_content(path)}")
        if unusable:
            console.warn(f"{path}: {unusable[0]}")


def _expected_content(path: str) -> str:
    if ".jsonl" in path:
        return 'wanted one object with "text" per line; --strict names the first line without'
    return "wanted PubMed XML" if ".xml" in path else "wanted texts separated by empty lines"


def _read_rows(
    paths: Iterable[str],
    several: bool,
    predictor: Predictor,
    columns: Columns,
    stats: PredictionStats,
    strict: bool,
) -> Iterator[tuple[dict[str, Any], Record]]:
    """Yields (identification of a row, the row)."""
    for path in paths:
        if path.lower().endswith(_TABLES):
            records, _ = tables.read_table(path, columns, labelled=False)
            names = inputs.placeholder_names(records)

            def reject(line: int, why: str, path: str = path) -> NoReturn:
                split_files.reject_line(path, line, f"{why}; the model was trained on other placeholders, or on none")

            inputs.check_placeholders(records, names, predictor.model.tokenizer, reject)
            for record in records:
                yield ({"file": path} if several else {}) | {"line": record.line}, record
        else:
            for document in _read_documents([path], stats, strict):
                pmid = {} if document.pmid is None else {"pmid": document.pmid}
                yield {"id": document.id, **pmid}, Record(document.text, "", "", 0)


def _label_lines(
    predictor: Predictor,
    rows: Iterable[tuple[dict[str, Any], Record]],
    stats: PredictionStats,
    characters: int,
    advance: Advance,
) -> Iterator[str]:
    for chunk in _chunks(rows, lambda row: len(row[1].text) + len(row[1].second), characters):
        predictions = predictor.labels([record for _, record in chunk])
        for (identification, _), prediction in zip(chunk, predictions, strict=True):
            yield json.dumps(identification | _rounded(prediction), ensure_ascii=False) + "\n"
        stats.items += len(chunk)
        stats.predictions += len(chunk)
        advance(len(chunk))


def _answer_pieces(
    predictor: Predictor,
    paths: Sequence[str],
    output_format: str,
    stats: PredictionStats,
    characters: int,
    advance: Advance,
) -> Iterator[str]:
    questions = splits.read_split(paths, for_training=False, labelled=False).questions
    threshold = predictor.model.postprocess.null_threshold
    advance(0, total=len(questions))
    all_answers: list[tuple[Question, Answers]] = []
    for chunk in _chunks(questions, lambda question: len(question.context), characters):
        answered = list(zip(chunk, predictor.answers(chunk), strict=True))
        stats.items += len(chunk)
        stats.predictions += sum(bool(answers.text(threshold)) for _, answers in answered)
        if output_format == entity_formats.JSONL:
            yield from (_answer_line(question, answers, threshold) for question, answers in answered)
        else:
            all_answers += answered
        advance(len(chunk))
    if output_format == SQUAD:
        texts = {question.id: answers.text(threshold) for question, answers in all_answers}
        yield json.dumps(texts, ensure_ascii=False, indent=1) + "\n"
    elif output_format == BIOASQ:
        merged = bioasq.merge_by_question(all_answers)
        best = {question_id: [text for text, _ in ranked] for question_id, ranked in merged.items()}
        yield json.dumps(bioasq.to_submission(best), ensure_ascii=False, indent=1) + "\n"


def _answer_line(question: Question, answers: Answers, threshold: float | None) -> str:
    best = [
        {"text": c.text, "start": c.start, "end": c.stop, "probability": c.probability}
        for c in answers.candidates[:_ANSWERS_WRITTEN]
    ]
    line = {"id": question.id, "answer": answers.text(threshold), "answers": [_rounded(one) for one in best]}
    return json.dumps(line, ensure_ascii=False) + "\n"


def _rounded(values: Any) -> Any:
    """Returns the values with floats rounded to six digits, about the precision of float32."""
    if isinstance(values, dict):
        return {name: _rounded(value) for name, value in values.items()}
    return round(values, 6) if isinstance(values, float) else values


def _chunks(items: Iterable[Item], length: Callable[[Item], int], characters: int) -> Iterator[list[Item]]:
    """Yields lists of consecutive items with about this number of characters in total."""
    chunk: list[Item] = []
    chunk_characters = 0
    for item in items:
        chunk.append(item)
        chunk_characters += length(item)
        if chunk_characters >= characters:
            yield chunk
            chunk, chunk_characters = [], 0
    if chunk:
        yield chunk
