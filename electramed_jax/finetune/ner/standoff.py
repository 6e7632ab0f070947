"""Files with entities by character: PubTator, and folders of brat.

PubTator: documents separated by empty lines; title, abstract, and one entity per line with the characters of
"title abstract", its text, its type and an identifier. Lines of relations have no characters and are ignored.

    26094|t|Antihypertensive drugs and depression.
    26094|a|Patients were followed for one year.
    26094	27	37	depression	Disease	D003866

brat: NAME.txt with the text, and NAME.ann with one entity per line. An entity of several parts ("0 5;10 15") counts as
one from its first to its last character. Lines of relations, events, attributes and notes are ignored.

    T1	Disease 27 37	depression

A title, an abstract, and a line of a brat text are separate texts, as in `electramed predict`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import NoReturn

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.finetune.ner.sentence import Sentence
from electramed_jax.finetune.ner.words import Span
from electramed_jax.finetune.task import split_files

_PUBTATOR_TEXT = re.compile(r"([^|\s]+)\|([ta])\|(.*)", re.DOTALL)
_BRAT_ENTITY = re.compile(r"(\S+) (\d+ \d+(?:;\d+ \d+)*)")
TEXT, ANNOTATIONS = ".txt", ".ann"


def is_pubtator(first_line: str) -> bool:
    """Returns whether a file with this first line is in PubTator's format."""
    return bool(_PUBTATOR_TEXT.match(first_line))


def is_brat(path: str) -> bool:
    """Returns whether a path is a folder of brat."""
    return files.is_dir(path) and any(name.endswith(ANNOTATIONS) for name in files.list_dir(path))


def read_pubtator(path: str) -> list[Sentence]:
    """Reads titles and abstracts.

    Raises:
      UserError: an entity is not at its characters, or a line is of no known form; names file and line.
    """
    return [sentence for _, sentence in read_pubtator_documents(path)]


def read_pubtator_documents(path: str) -> Iterator[tuple[str, Sentence]]:
    """Yields (PMID, title or abstract); see `read_pubtator`."""
    lines = enumerate(split_files.read_lines(path), 1)
    for is_empty, group in itertools.groupby(lines, lambda line: not line[1].strip()):
        if not is_empty:
            yield from _read_document(path, list(group))


def _read_document(path: str, lines: list[tuple[int, str]]) -> Iterator[tuple[str, Sentence]]:
    texts: dict[str, tuple[int, str]] = {}
    entities: list[tuple[int, Span, str]] = []
    identifier = ""
    for number, line in lines:
        if match := _PUBTATOR_TEXT.match(line):
            identifier = match[1]
            texts[match[2]] = (number, match[3])
            continue
        columns = line.split("\t")
        if len(columns) >= 5 and columns[1].isdecimal() and columns[2].isdecimal():
            entities.append((number, Span(int(columns[1]), int(columns[2]), columns[4].strip()), columns[3]))
        elif len(columns) < 4:
            split_files.reject_line(
                path, number, f"{line[:60]!r}; wanted PMID|t|..., PMID|a|... or tab-separated columns"
            )
    whole = " ".join(text for _, text in texts.values())
    for number, span, mention in entities:
        _check_mention(path, number, whole, span, mention)
    start = 0
    for number, text in texts.values():
        stop = start + len(text)
        yield identifier, _cut(text, start, stop, number, [span for _, span, _ in entities])
        start = stop + 1


def read_brat(folder: str) -> list[Sentence]:
    """Reads the texts of a folder with their entities.

    Raises:
      UserError: a text is missing, or an entity is not at its characters; names file and line.
    """
    sentences: list[Sentence] = []
    names = files.list_dir(folder)
    for name in (name for name in names if name.endswith(ANNOTATIONS)):
        text_name = name.removesuffix(ANNOTATIONS) + TEXT
        if text_name not in names:
            raise UserError(f"{files.join(folder, name)}: no {text_name} next to it; copy the text into the folder")
        text = files.read_text(files.join(folder, text_name))
        spans = _read_annotations(files.join(folder, name), text)
        sentences += split_lines(text, spans)
    if not sentences:
        raise UserError(f"{folder}: its texts are empty; copy the corpus again")
    return sentences


def _read_annotations(path: str, text: str) -> list[Span]:
    spans = []
    for number, line in enumerate(files.read_text(path).split("\n"), 1):
        if not line.startswith("T"):
            continue
        _, _, rest = line.partition("\t")
        place, _, mention = rest.rstrip("\r").partition("\t")
        match = _BRAT_ENTITY.fullmatch(place.strip())
        if not match:
            split_files.reject_line(
                path, number, f"{line[:60]!r}; wanted T1, a tab, TYPE START END, a tab and the text"
            )
        parts = [tuple(map(int, part.split())) for part in match[2].split(";")]
        span = Span(min(start for start, _ in parts), max(stop for _, stop in parts), match[1])
        if len(parts) == 1:
            _check_mention(path, number, text, span, mention)
        spans.append(span)
    return spans


def split_lines(text: str, spans: list[Span]) -> Iterator[Sentence]:
    """Yields the lines of a text; lines that an entity joins are one."""
    start = 0
    for line_end in [*(match.start() for match in re.finditer("\n", text)), len(text)]:
        if line_end < start or any(span.start < line_end < span.stop for span in spans):
            continue
        if text[start:line_end].strip():
            yield _cut(text[start:line_end], start, line_end, text.count("\n", 0, start) + 1, spans)
        start = line_end + 1


def _cut(text: str, start: int, stop: int, line: int, spans: list[Span]) -> Sentence:
    """Returns the text from `start` to `stop` of a document, with the entities inside."""
    inside = [
        span._replace(start=span.start - start, stop=span.stop - start)
        for span in spans
        if start <= span.start and span.stop <= stop
    ]
    return Sentence.from_spans(text, inside, line)


def _check_mention(path: str, line: int, text: str, span: Span, mention: str) -> None:
    found = text[span.start : span.stop]
    if "".join(found.split()) != "".join(mention.split()) or not found.strip():
        _reject_mention(path, line, span, mention, found)


def _reject_mention(path: str, line: int, span: Span, mention: str, found: str) -> NoReturn:
    split_files.reject_line(
        path,
        line,
        f"the entity is {mention!r}, but the text has {found!r} at characters {span.start} to {span.stop}; correct the "
        "offsets, or copy the corpus again (a text with other line ends has other offsets)",
    )
