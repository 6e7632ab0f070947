"""Parses the listings of NLM's server: names of PubMed files, directory pages, `.md5` files, and number ranges."""

from __future__ import annotations

import dataclasses
import posixpath
import re
import urllib.parse
from collections.abc import Collection, Iterable, Sequence

from electramed_jax.common.errors import UserError

FILE_NAME = re.compile(r"pubmed(?P<year>\d\d)n(?P<number>\d{4,9})\.xml\.gz")
MAX_NUMBER = 99_999
_CENTURY = 2000
_SIZE = re.compile(r"(?P<digits>\d{1,15}(?:\.\d{1,6})?)(?P<unit>[KMGT]?)\s*$")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_MD5 = re.compile(
    r"\s*(?:MD5\s*\((?P<name>[^)]+)\)\s*=\s*)?(?P<md5>[0-9a-f]{32})(?:\s+\*?(?P<after>\S+))?\s*", re.IGNORECASE
)


@dataclasses.dataclass(frozen=True)
class ListedFile:
    """One file of a listing.

    Attributes:
      name: pubmedYYnNNNN.xml.gz.
      year: production year, four digits.
      number: NNNN.
      url: of the file.
      details: date and size as shown on the page; they change with the file.
      approximate_bytes: size as rounded on the page; 0 if the page shows none.
    """

    name: str
    year: int
    number: int
    url: str
    details: str
    approximate_bytes: int


def parse_listing(page: bytes, folder_url: str) -> list[ListedFile]:
    """Returns the PubMed files of a directory index (Apache, nginx and others), sorted by year and number.

    Args:
      page: HTML; links to other files and folders are ignored.
      folder_url: of the page, with a slash at the end.

    Raises:
      UserError: the page lists no PubMed file.
    """
    import lxml.html  # not at the top: slow import

    found = {}
    if page.strip():
        for link in lxml.html.document_fromstring(page).iterfind(".//a[@href]"):
            url = urllib.parse.urljoin(folder_url, link.get("href"))
            name = posixpath.basename(url)
            match = FILE_NAME.fullmatch(name)
            if match and url == folder_url + name:
                details = " ".join((link.tail or "").split())
                year, number = _CENTURY + int(match["year"]), int(match["number"])
                found[name] = ListedFile(name, year, number, url, details, _parse_size(details))
    if not found:
        raise UserError(
            f"{folder_url}: got a page without a pubmedYYnNNNN.xml.gz; wanted the directory index of the server; "
            "check the address (--mirror is the folder with baseline/ and updatefiles/)"
        )
    return sorted(found.values(), key=lambda file: (file.year, file.number))


def _parse_size(details: str) -> int:
    size = _SIZE.search(details)
    return int(float(size["digits"]) * _UNITS[size["unit"]]) if size else 0


def parse_md5(content: bytes, name: str) -> str | None:
    """Returns the MD5 in a `.md5` file, `MD5(name)= hex` or `hex  name`; None for another format or another name."""
    match = _MD5.fullmatch(content.decode("utf-8", "replace"))
    if not match:
        return None
    found = match["name"] or match["after"]
    return match["md5"].lower() if not found or posixpath.basename(found) == name else None


def parse_numbers(text: str) -> frozenset[int]:
    """Parses `1,5,7-9` to {1, 5, 7, 8, 9}.

    Raises:
      UserError: invalid syntax or range.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= MAX_NUMBER:
            raise UserError(
                f"--files {text}: got {part.strip()!r}, wanted a number or an increasing range in 1-{MAX_NUMBER}, "
                "such as 1-20 or 1,5,7-9"
            )
        numbers.update(range(first, last + 1))
    return frozenset(numbers)


def format_numbers(numbers: Iterable[int]) -> str:
    """Formats {1, 5, 7, 8, 9} as `1,5,7-9`."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in ranges)


def select_files(listed: Sequence[ListedFile], year: int, numbers: Collection[int] | None) -> list[ListedFile]:
    """Returns the files of a production year with these numbers, or all of them if `numbers` is None.

    Raises:
      UserError: the server does not have the year or a number.
    """
    available = {file.number: file for file in listed if file.year == year}
    if not available:
        years = ", ".join(map(str, sorted({file.year for file in listed})))
        raise UserError(
            f"--year {year}: not on the server, which has {years} (NLM keeps only the current production year); "
            "omit --year, or give a --mirror that has it"
        )
    if numbers is not None and (absent := set(numbers) - available.keys()):
        raise UserError(
            f"--files {format_numbers(numbers)}: the server has no {format_numbers(absent)} of {year}; "
            f"wanted numbers in {format_numbers(available)}"
        )
    return [available[number] for number in sorted(available if numbers is None else numbers)]
