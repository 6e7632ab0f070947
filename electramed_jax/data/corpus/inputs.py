"""Finds the inputs of a corpus, in the order that deduplication uses: documents folders first, then files."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.data.corpus import corpus_dir
from electramed_jax.data.readers import reader
from electramed_jax.data.readers.document import Document, ReadOptions

PREPARED = "prepared"  # the format of parts, in the counts of formats


@dataclasses.dataclass(frozen=True)
class Source:
    """One input: a file, a shard of a dataset, or the parts with one number in a finished documents folder.

    Attributes:
      path: of the file; of parts their common name, "DIR/part-00003".
      parts: path of the part of each split; empty for a file.
    """

    path: str
    parts: tuple[str, ...] = ()

    def size(self) -> int:
        """Returns the size on disk in bytes."""
        return sum(map(files.size, self.parts)) if self.parts else reader.input_bytes(self.path)

    def read(
        self,
        drops: Counter[str],
        strict: bool,
        read_options: ReadOptions,
        deletions: list[int],
        unusable: list[str],
        counts: Counter[str],
    ) -> Iterator[Document]:
        """Yields the documents, as `reader.read_documents` does.

        Raises:
          UserError: see there; also for a damaged part, strict or not, because `prepare` wrote it.
        """
        if not self.parts:
            yield from reader.read_documents(self.path, drops, strict, read_options, deletions, unusable, counts)
        for part in self.parts:
            for document in corpus_dir.read_part(part):
                counts[PREPARED] += 1
                yield document


def find_sources(patterns: Iterable[str]) -> list[Source]:
    """Returns the sources of paths, glob patterns, dataset names and documents folders.

    Folders come first, in the given order, because files are newer. Files are sorted by path.

    Raises:
      UserError: a pattern matches no file, or a folder has no finished documents.
    """
    patterns = list(patterns)
    folders = [path for path in dict.fromkeys(patterns) if files.exists(files.join(path, corpus_dir.FILE))]
    sources = [source for folder in folders for source in _folder_sources(folder)]
    sources += map(Source, reader.find_inputs(path for path in patterns if path not in folders))
    if not sources:
        raise UserError("no input files; give at least one path or pattern with --input")
    return sources


def short_names(paths: Sequence[str]) -> list[str]:
    """Returns paths without their common folder, so that documents.json does not depend on the location."""
    # commonpath raises for a mix of absolute and relative paths; rfind ends the prefix at a folder.
    prefix = os.path.commonprefix(list(paths))  # noqa: RUF071
    return [path[prefix.rfind("/") + 1 :] for path in paths]


def _folder_sources(folder: str) -> Iterator[Source]:
    for number in range(len(corpus_dir.read_documents_info(folder)["inputs"])):
        name = files.join(folder, corpus_dir.part_name(number).removesuffix(corpus_dir.PART_SUFFIX))
        yield Source(name, tuple(corpus_dir.part_path(folder, split, number) for split in corpus_dir.SPLITS))
