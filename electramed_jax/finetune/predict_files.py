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
from electramed_jax.data.readers import formats, reader
from electramed_jax.data.readers.document import Document, ReadOptions
from electramed_jax.finetune.output import annotated_document, answer_formats, brat, entity_formats, label_formats
from electramed_jax.finetune.output.annotated_document import AnnotatedDocument
from electramed_jax.finetune.postprocess_config import PostprocessConfig
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
    SEQUENCE: label_formats.FORMATS,
    SPAN: (*answer_formats.FORMATS, SQUAD, BIOASQ),
}
_TABLES = tuple(f".{ending}" for ending in tables.ENDINGS)
_QUESTIONS = (".json", ".json.gz")
ITEM_NAMES = {TOKEN: "documents", SEQUENCE: "texts", SPAN: "questions and passages"}  # what the progress bar counts
_CHARACTERS_PER_TOKEN = 4  # roughly
_BATCHES_PER_CHUNK = 16  # the last batch of a chunk is half empty on average
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
    """Raises UserError for the first file that a model with this kind of head does not read.

    Files with texts are recognized by their content when they are read.
    """
    for path in paths:
        if kind == SPAN and not path.lower().endswith(_QUESTIONS):
            raise UserError(
                f"{path}: the model predicts answers to questions; wanted a file that ends in {', '.join(_QUESTIONS)}"
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
      output_format: one of `FORMATS` of the model's head, except brat.
      stats: updated while the output is produced.
      batch_tokens: tokens of a batch; text for several batches is read at once.
      columns: columns of tables.
      strict: stop at damaged documents instead of leaving them out.

    Raises:
      UserError: a line cannot be read; names file and line.
    """
    characters = _chunk_characters(batch_tokens)
    kind = predictor.model.head.kind
    with console.progress(None, ITEM_NAMES[kind], "predicting") as advance:
        if kind == TOKEN:
            annotated = _annotate_files(predictor, paths, stats, characters, columns, strict, advance)
            yield from entity_formats.get_writer(output_format)(annotated, predictor.model.source)
        elif kind == SEQUENCE:
            counted = _with_total(paths, lambda path: _count_rows(path, columns), advance)
            rows = _read_rows(counted, len(paths) > 1, predictor, columns, stats, strict)
            labelled = _label(predictor, rows, stats, characters, advance)
            yield from label_formats.get_writer(output_format)(labelled, predictor.model.head, predictor.model.source)
        else:
            answered = _answer(predictor, paths, stats, characters, advance)
            threshold = predictor.model.postprocess.null_threshold
            if output_format in answer_formats.FORMATS:
                yield from answer_formats.get_writer(output_format)(answered, threshold, predictor.model.source)
            else:
                yield _submission(output_format, list(answered), predictor.model.postprocess)


def predict_brat(
    predictor: Predictor,
    paths: Sequence[str],
    stats: PredictionStats,
    *,
    batch_tokens: int,
    columns: Columns = tables.DEFAULT_COLUMNS,
    strict: bool = False,
) -> Iterator[tuple[str, str]]:
    """Yields (name, content) of the files of brat with the entities of the documents; see `predict_files`."""
    characters = _chunk_characters(batch_tokens)
    with console.progress(None, ITEM_NAMES[TOKEN], "predicting") as advance:
        yield from brat.write_brat(_annotate_files(predictor, paths, stats, characters, columns, strict, advance))


def _chunk_characters(batch_tokens: int) -> int:
    return batch_tokens * _CHARACTERS_PER_TOKEN * _BATCHES_PER_CHUNK


def _annotate_files(
    predictor: Predictor,
    paths: Sequence[str],
    stats: PredictionStats,
    characters: int,
    columns: Columns,
    strict: bool,
    advance: Advance,
) -> Iterator[AnnotatedDocument]:
    options = _read_options(columns)
    counted = _with_total(paths, lambda path: _count_documents(path, options), advance)
    documents = _read_documents(counted, stats, strict, options)
    return annotate(predictor, documents, stats, characters, advance)


def _read_options(columns: Columns) -> ReadOptions:
    return ReadOptions(titles_alone=True, text_field=columns.text)


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


def _count_documents(path: str, options: ReadOptions) -> int:
    with console.at_level(console.QUIET):  # the second reading warns
        return sum(1 for _ in reader.read_documents(path, collections.Counter(), options=options))


def _count_rows(path: str, columns: Columns) -> int:
    is_table = path.lower().endswith(_TABLES)
    if is_table:
        return len(tables.read_table(path, columns, labelled=False)[0])
    return _count_documents(path, ReadOptions(titles_alone=True))


def annotate(
    predictor: Predictor, documents: Iterable[Document], stats: PredictionStats, characters: int, advance: Advance
) -> Iterator[AnnotatedDocument]:
    """Yields documents with their entities. Title and sections are separate texts: no entity spans two of them."""
    for chunk in _chunks(documents, lambda document: len(document.text), characters):
        texts = [passage.text for document in chunk for passage in annotated_document.passages(document)]
        predicted = iter(predictor.entities(texts))
        for document in chunk:
            annotated = []
            for passage in annotated_document.passages(document):
                shift = passage.start
                entities = [e._replace(start=e.start + shift, stop=e.stop + shift) for e in next(predicted)]
                annotated.append((passage, entities))
                stats.predictions += len(entities)
            stats.items += 1
            yield document, annotated
        advance(len(chunk))


def _read_documents(
    paths: Iterable[str], stats: PredictionStats, strict: bool, options: ReadOptions
) -> Iterator[Document]:
    for path in paths:
        dropped: collections.Counter[str] = collections.Counter()
        unusable: list[str] = []
        number = 0
        for document in reader.read_documents(path, dropped, strict, options, unusable=unusable):
            number += 1
            yield document
        stats.dropped.update(dropped)
        if not number:
            reasons = unusable or [f"{reason}: {count:,}" for reason, count in dropped.items()]
            raise UserError(f"{path}: no document in it ({', '.join(reasons)}); {_expected_content(path)}")
        if unusable:
            console.warn(f"{path}: {unusable[0]}")


def _expected_content(path: str) -> str:
    named = formats.format_of_name(path.lower())
    if named is not None and named.name == "jsonl":
        return 'wanted one object with "text" per line; --strict names the first line without'
    contents = named.contents if named else "a format of electramed prepare --list_formats"
    return f"wanted {contents}"


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
            for document in _read_documents([path], stats, strict, ReadOptions(titles_alone=True)):
                pmid = {} if document.pmid is None else {"pmid": document.pmid}
                yield {"id": document.id, **pmid}, Record(document.text, "", "", 0)


def _label(
    predictor: Predictor,
    rows: Iterable[tuple[dict[str, Any], Record]],
    stats: PredictionStats,
    characters: int,
    advance: Advance,
) -> Iterator[label_formats.Labelled]:
    for chunk in _chunks(rows, lambda row: len(row[1].text) + len(row[1].second), characters):
        predictions = predictor.labels([record for _, record in chunk])
        for (identification, record), prediction in zip(chunk, predictions, strict=True):
            yield identification, record, prediction
        stats.items += len(chunk)
        stats.predictions += len(chunk)
        advance(len(chunk))


def _answer(
    predictor: Predictor, paths: Sequence[str], stats: PredictionStats, characters: int, advance: Advance
) -> Iterator[tuple[Question, Answers]]:
    kind = predictor.model.postprocess.question_kind
    questions = splits.read_split(paths, for_training=False, labelled=False, kind=kind).questions
    threshold = predictor.model.postprocess.null_threshold
    advance(0, total=len(questions))
    for chunk in _chunks(questions, lambda question: len(question.context), characters):
        answered = list(zip(chunk, predictor.answers(chunk), strict=True))
        stats.items += len(chunk)
        stats.predictions += sum(bool(answers.text(threshold)) for _, answers in answered)
        yield from answered
        advance(len(chunk))


def _submission(output_format: str, answered: Sequence[tuple[Question, Answers]], settings: PostprocessConfig) -> str:
    """Returns the file of all answers that SQuAD's or BioASQ's evaluation reads."""
    if output_format == SQUAD:
        texts = {question.id: answers.text(settings.null_threshold) for question, answers in answered}
        return json.dumps(texts, ensure_ascii=False, indent=1) + "\n"
    is_list = settings.question_kind == bioasq.LIST
    merged = bioasq.merge_by_question(answered, bioasq.MAX_ITEMS if is_list else bioasq.MAX_ANSWERS)
    least = settings.list_threshold if is_list else 0.0
    best = {question_id: bioasq.choose_items(ranked, least) for question_id, ranked in merged.items()}
    return json.dumps(bioasq.to_submission(best, settings.question_kind), ensure_ascii=False, indent=1) + "\n"


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
