"""What a corpus is made from, in the order that decides: folders of documents first, then files."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage import files
from electramed_jax.data.corpus import corpus_dir
from electramed_jax.data.readers import document, reader


@dataclasses.dataclass(frozen=True)
class Source:
    """One input: a file (or a TFDS shard), or the parts of one number of a finished documents folder, one a split.

    Attributes:
      path: of the file; of the parts what they share, "DIR/part-00003".
      parts: paths; empty for a file.
    """

    path: str
    parts: tuple[str, ...] = ()

    def size(self) -> int:
        """Bytes as stored."""
        return sum(map(files.size, self.parts)) if self.parts else reader.input_bytes(self.path)

    def read(
        self, drops: Counter, strict: bool, reading: document.PubmedOptions, deletions: list[int]
    ) -> Iterator[document.Document]:
        """The documents, as `documents.read` gives them.

        Raises:
          UserError: as there; a damaged part, which was whole when it was written, strict or not.
        """
        if not self.parts:
            yield from reader.read_documents(self.path, drops, strict, reading, deletions)
        for part in self.parts:
            yield from corpus_dir.read_part(part)


def find(inputs: Iterable[str]) -> list[Source]:
    """The sources that paths, patterns and documents folders name.

    The folders come first, in the order given: what is in a file is newer. Files are sorted by path.

    Raises:
      UserError: a pattern that matches no file, a folder that holds no finished documents.
    """
    inputs = list(inputs)
    folders = [path for path in dict.fromkeys(inputs) if files.exists(files.join(path, corpus_dir.FILE))]
    found = [source for folder in folders for source in _of_folder(folder)]
    found += map(Source, reader.find_inputs(path for path in inputs if path not in folders))
    if not found:
        raise UserError("no input files; give at least one path or pattern with --input")
    return found


def short_names(paths: Sequence[str]) -> list[str]:
    """Names without the folder all paths share: an account does not depend on where the files lie."""
    shared = os.path.commonprefix(list(paths))
    return [path[shared.rfind("/") + 1 :] for path in paths]


def _of_folder(folder: str) -> Iterator[Source]:
    for number in range(len(corpus_dir.read_documents_info(folder)["inputs"])):
        name = files.join(folder, corpus_dir.part_name(number).removesuffix(corpus_dir.PART_SUFFIX))
        yield Source(name, tuple(corpus_dir.part_path(folder, split, number) for split in corpus_dir.SPLITS))
