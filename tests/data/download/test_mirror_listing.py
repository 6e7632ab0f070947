from __future__ import annotations

import pytest

from electramed_jax.common.errors import UserError
from electramed_jax.data.download import mirror_listing

URL = "https://server.example/pubmed/updatefiles/"
HEX = "0123456789abcdef0123456789abcdef"
APACHE = b"""<!DOCTYPE HTML PUBLIC "-//W3C//DTD HTML 3.2 Final//EN">
<html>
 <head>
  <title>Index of /pubmed/updatefiles</title>
 </head>
 <body>
<h1>Index of /pubmed/updatefiles</h1>
<pre>Name                          Last modified      Size  <hr><a href="/pubmed/">Parent Directory</a>     -
<a href="README.txt">README.txt</a>                    2026-01-15 16:15  5.0K
<a href="pubmed26n1335.xml.gz">pubmed26n1335.xml.gz</a>          2026-01-16 14:03   20M
<a href="pubmed26n1335.xml.gz.md5">pubmed26n1335.xml.gz.md5</a>      2026-01-16 14:03   60
<a href="pubmed26n1335_stats.html">pubmed26n1335_stats.html</a>      2026-01-16 14:03  603
<a href="pubmed26n1334.xml.gz">pubmed26n1334.xml.gz</a>          2026-01-15 14:03  4.5M
<a href="medline12n0001.xml.gz">medline12n0001.xml.gz</a>         2012-01-15 14:03  4.5M
<hr></pre>
</body></html>
"""


def files(*names: str) -> list[mirror_listing.ListedFile]:
    return mirror_listing.parse_listing("".join(f'<a href="{name}">{name}</a>\n' for name in names).encode(), URL)


def test_the_files_of_an_apache_index_are_found_in_order_with_their_sizes():
    found = mirror_listing.parse_listing(APACHE, URL)
    assert [(file.name, file.year, file.number) for file in found] == [
        ("pubmed26n1334.xml.gz", 2026, 1334),
        ("pubmed26n1335.xml.gz", 2026, 1335),
    ]
    assert [file.approximate_bytes for file in found] == [int(4.5 * 2**20), 20 * 2**20]
    assert found[1].url == URL + "pubmed26n1335.xml.gz"
    assert found[1].details == "2026-01-16 14:03 20M"


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ('<a href="pubmed26n0001.xml.gz">pubmed26n0001.x..&gt;</a>  15-Jan-2026 14:03   19823457', 19_823_457),  # nginx
        ('<li><a href="pubmed26n0001.xml.gz">pubmed26n0001.xml.gz</a></li>', 0),  # python -m http.server
        (f'<a href="{URL}pubmed26n0001.xml.gz">the first</a>  -', 0),
    ],
)
def test_indexes_of_other_servers_are_read(line, size):
    (file,) = mirror_listing.parse_listing(f"<html><body><pre>{line}\n</pre></body></html>".encode(), URL)
    assert (file.name, file.approximate_bytes) == ("pubmed26n0001.xml.gz", size)


def test_a_link_to_another_folder_or_server_is_not_a_file_of_this_one():
    other_links = (
        "../baseline/pubmed26n0002.xml.gz",
        "https://elsewhere.example/pubmed26n0003.xml.gz",
        "a/pubmed26n0004.xml.gz",
    )
    assert [file.number for file in files("pubmed26n0001.xml.gz", *other_links)] == [1]


@pytest.mark.parametrize("page", [b"", b"<html><body>Please log in</body></html>", b"\x1f\x8b\x00garbage"])
def test_a_page_without_files_is_an_error_with_its_url(page):
    with pytest.raises(UserError, match=rf"^{URL}: got a page without a pubmedYYnNNNN"):
        mirror_listing.parse_listing(page, URL)


@pytest.mark.parametrize(
    "content",
    [
        f"MD5(pubmed26n0001.xml.gz)= {HEX}\n",
        f"MD5 (/some/where/pubmed26n0001.xml.gz) = {HEX}",
        f"{HEX.upper()}  pubmed26n0001.xml.gz\n",
        f"{HEX} *pubmed26n0001.xml.gz",
        HEX,
    ],
)
def test_the_md5_is_read_in_the_common_formats(content):
    assert mirror_listing.parse_md5(content.encode(), "pubmed26n0001.xml.gz") == HEX


@pytest.mark.parametrize(
    "content",
    [
        f"MD5(pubmed26n0002.xml.gz)= {HEX}\n",
        f"{HEX}  pubmed26n0002.xml.gz",
        f"MD5(pubmed26n0001.xml.gz)= {HEX[:-1]}",
        f"MD5(pubmed26n0001.xml.gz)= {HEX}0",
        "<html>not found</html>",
        "",
        "\xff",
    ],
)
def test_the_md5_of_another_file_or_an_invalid_one_is_none(content):
    assert mirror_listing.parse_md5(content.encode("latin-1"), "pubmed26n0001.xml.gz") is None


def test_numbers_are_read_and_written_as_ranges():
    assert mirror_listing.parse_numbers("1,5, 7-9") == {1, 5, 7, 8, 9}
    assert mirror_listing.format_numbers({9, 1, 8, 7, 5}) == "1,5,7-9"


@pytest.mark.parametrize("text", ["", "0", "0-3", "5-2", "1,,2", "a", "1-", "-3", "1-2-3", "1-100000", "1.5"])
def test_invalid_numbers_are_an_error_with_an_example(text):
    with pytest.raises(UserError, match="wanted a number or an increasing range.* such as 1-20 or 1,5,7-9"):
        mirror_listing.parse_numbers(text)


def test_files_are_selected_by_year_and_number():
    listed = files("pubmed25n0001.xml.gz", "pubmed26n0001.xml.gz", "pubmed26n0002.xml.gz")
    assert [file.name for file in mirror_listing.select_files(listed, 2026, None)] == [
        "pubmed26n0001.xml.gz",
        "pubmed26n0002.xml.gz",
    ]
    assert [file.name for file in mirror_listing.select_files(listed, 2025, {1})] == ["pubmed25n0001.xml.gz"]


def test_missing_files_are_an_error_that_lists_the_available_ones():
    listed = files("pubmed25n0001.xml.gz", "pubmed26n0001.xml.gz", "pubmed26n0002.xml.gz", "pubmed26n0004.xml.gz")
    with pytest.raises(UserError, match="--year 2019: not on the server, which has 2025, 2026 "):
        mirror_listing.select_files(listed, 2019, None)
    with pytest.raises(UserError, match="--files 2-5: the server has no 3,5 of 2026; wanted numbers in 1-2,4"):
        mirror_listing.select_files(listed, 2026, {2, 3, 4, 5})
