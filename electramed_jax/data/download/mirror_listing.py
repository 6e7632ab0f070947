"""What NLM's server offers: names of PubMed files, the pages that list them, and their `.md5`."""

from __future__ import annotations

import dataclasses
import posixpath
import re
import urllib.parse
from collections.abc import Collection, Iterable, Sequence

from electramed_jax.common.errors import UserError

NAME = re.compile(r"pubmed(?P<year>\d\d)n(?P<number>\d{4,})\.xml\.gz")
LAST_NUMBER = 99_999
_CENTURY = 2000
_SIZE = re.compile(r"(?P<digits>\d+(?:\.\d+)?)(?P<unit>[KMGT]?)\s*$")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_MD5 = re.compile(
    r"\s*(?:MD5\s*\((?P<name>[^)]+)\)\s*=\s*)?(?P<md5>[0-9a-f]{32})(?:\s+\*?(?P<after>\S+))?\s*", re.IGNORECASE
)


@dataclasses.dataclass(frozen=True)
class Listed:
    """One file of a listing.

    Attributes:
      name: pubmedYYnNNNN.xml.gz; year: production year, of four digits; number: NNNN.
      url: where it is.
      details: date and size as the page shows them; they change when the file does.
      about_bytes: the size, as rounded on the page; 0 where it shows none.
    """

    name: str
    year: int
    number: int
    url: str
    details: str
    about_bytes: int


def parse(page: bytes, folder_url: str) -> list[Listed]:
    """The PubMed files of a directory index (Apache's, nginx's and their like), by year and number.

    Anything else that the page lists or links to is passed over.

    Args:
      folder_url: of the page, with a slash at the end.

    Raises:
      UserError: no such file in it.
    """
    import lxml.html  # kept off the start-up path

    found = {}
    if page.strip():
        for link in lxml.html.document_fromstring(page).iterfind(".//a[@href]"):
            url = urllib.parse.urljoin(folder_url, link.get("href"))
            name = posixpath.basename(url)
            match = NAME.fullmatch(name)
            if match and url == folder_url + name:
                details = " ".join((link.tail or "").split())
                year, number = _CENTURY + int(match["year"]), int(match["number"])
                found[name] = Listed(name, year, number, url, details, _about_bytes(details))
    if not found:
        raise UserError(
            f"{folder_url}: got a page without a pubmedYYnNNNN.xml.gz; wanted the server's list of files; "
            "check the address (--mirror names the folder above baseline/ and updatefiles/)"
        )
    return sorted(found.values(), key=lambda file: (file.year, file.number))


def _about_bytes(details: str) -> int:
    size = _SIZE.search(details)
    return int(float(size["digits"]) * _UNITS[size["unit"]]) if size else 0


def parse_md5(content: bytes, name: str) -> str | None:
    """The digest in a `.md5`: `MD5(name)= hex` as NLM writes it, or `hex  name`; None if neither, or another's."""
    match = _MD5.fullmatch(content.decode("utf-8", "replace"))
    if not match:
        return None
    of = match["name"] or match["after"]
    return match["md5"].lower() if not of or posixpath.basename(of) == name else None


def parse_numbers(text: str) -> frozenset[int]:
    """`1,5,7-9` -> {1, 5, 7, 8, 9}.

    Raises:
      UserError: anything else.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= LAST_NUMBER:
            raise UserError(
                f"--files {text}: {part.strip()!r} is no number or rising range in 1-{LAST_NUMBER}; "
                "give 1-20, or 1,5,7-9"
            )
        numbers.update(range(first, last + 1))
    return frozenset(numbers)


def numbers_text(numbers: Iterable[int]) -> str:
    """The opposite: {1, 5, 7, 8, 9} -> `1,5,7-9`."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in ranges)


def choose(listed: Sequence[Listed], year: int, numbers: Collection[int] | None) -> list[Listed]:
    """The files of a production year that have one of the numbers; all of them without numbers.

    Raises:
      UserError: the year, or a number, is not offered.
    """
    offered = {file.number: file for file in listed if file.year == year}
    if not offered:
        years = ", ".join(map(str, sorted({file.year for file in listed})))
        raise UserError(
            f"--year {year}: not on the server, which has {years} (NLM keeps the current production year only); "
            "leave --year out, or name a --mirror that has it"
        )
    if absent := set(numbers or ()) - offered.keys():
        raise UserError(
            f"--files {numbers_text(numbers)}: the server has no {numbers_text(absent)} of {year}; "
            f"wanted numbers out of {numbers_text(offered)}"
        )
    return [offered[number] for number in sorted(offered if numbers is None else numbers)]
