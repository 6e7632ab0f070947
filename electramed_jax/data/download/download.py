"""PubMed's baseline and daily update files from NLM's server into a folder: verified, resumable, polite."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
import time
import urllib.parse
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import electramed_jax
from electramed_jax.common import console
from electramed_jax.common.errors import EXIT_DONE, EXIT_USER_ERROR, UserError
from electramed_jax.common.storage import files, http_client
from electramed_jax.data.download import mirror_listing
from electramed_jax.data.download.download_dir import Folder, md5_of
from electramed_jax.data.download.mirror_listing import Listed

NLM = "https://ftp.ncbi.nlm.nih.gov/pubmed"
FOLDERS = {"baseline": "baseline", "updates": "updatefiles"}
PARALLEL = 3
MOST_PARALLEL = 8
MD5_TRIES = 3
LONGEST_STALL_SECONDS = 3600.0
UNANSWERED_FILES = 5  # given up one after the other: the server is gone, the rest need not be tried
_SECONDS_TO_END = 0.5


class Damaged(UserError):
    """What the server has of a file does not agree with its `.md5`, or it has none."""


def download(
    output_dir: str,
    *,
    collections: Sequence[str] = ("baseline",),
    numbers: Collection[int] | None = None,
    year: int | None = None,
    mirror: str = NLM,
    parallel: int = PARALLEL,
    verify: bool = False,
    dry_run: bool = False,
    retry_policy: http_client.RetryPolicy = http_client.RetryPolicy(),
) -> dict[str, Any]:
    """Makes the folder hold the chosen files, each of them whole; returns the account.

    A file that cannot be had is no reason to stop: the account names it under "missing", and holds exit code 2.

    Args:
      collections: of FOLDERS.
      numbers: NNNN of the file names; None takes all.
      year: production year; None takes the newest on the server.
      mirror: URL of the folder that holds FOLDERS. Only here may it be http://; redirects to that are refused.
      parallel: files fetched at once, at most MOST_PARALLEL.
      verify: read files again instead of trusting the record of what was verified.
      dry_run: say what there is to fetch, and stop.

    Raises:
      UserError: options out of range, a server that gives no list, a disk that takes no more.
    """
    mirror = _checked_mirror(mirror)
    if not 1 <= parallel <= MOST_PARALLEL:
        raise UserError(f"--parallel {parallel}: wanted 1 to {MOST_PARALLEL}; the server is everybody's")
    if retry_policy.max_retries < 0 or not 0 < retry_policy.timeout_seconds <= LONGEST_STALL_SECONDS:
        raise UserError(
            f"--retries {retry_policy.max_retries} --stall_seconds {retry_policy.timeout_seconds:g}: wanted 0 or more retries, and "
            f"more than 0 seconds, at most {LONGEST_STALL_SECONDS:g}"
        )
    began, folder = time.monotonic(), Folder(output_dir)
    allow_http = mirror.startswith("http://")
    client = http_client.Client(f"electramed_jax/{electramed_jax.__version__}", retry_policy, allow_http=allow_http)
    listed: list[Listed] = []
    for name in collections:
        url = f"{mirror}/{FOLDERS[name]}/"
        listed += mirror_listing.parse(client.read(url), url)
    chosen = mirror_listing.choose(listed, _newest(listed) if year is None else year, numbers)
    wanted = [file for file in chosen if verify or not folder.has(file)]
    _say_plan(chosen, wanted, folder)
    arrived, missing = {}, {file.name: "not tried" for file in wanted}
    if not dry_run:
        with folder.opened():
            arrived = _bring_all(wanted, folder, client, parallel, missing)
    whole = [file.name for file in chosen if file.name not in missing]
    fetched = sum(n > 0 for n in arrived.values())
    return {
        "output": folder.path,
        "year": chosen[0].year,
        "files": len(whole),
        "bytes": sum(map(folder.recorded_bytes, whole)),
        "fetched": fetched,
        "fetched_bytes": sum(arrived.values()),
        "skipped": len(whole) - fetched,
        "retried": client.retry_count,
        "seconds": round(time.monotonic() - began, 1),
        "missing": missing,
        "exit_code": EXIT_USER_ERROR if missing and not dry_run else EXIT_DONE,
    }


def _checked_mirror(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if "@" in parts.netloc:
        raise UserError("--mirror: got a URL with a user name in it, which logs would show; put it into ~/.netrc")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UserError(f"--mirror {url}: wanted https://HOST/FOLDER, the one above baseline/ and updatefiles/")
    return url.rstrip("/")


def _newest(listed: Sequence[Listed]) -> int:
    years = sorted({file.year for file in listed})
    if len(years) > 1:
        counts = " and ".join(f"{sum(file.year == year for file in listed):,} files of {year}" for year in years)
        console.say(f"the server has {counts}; taking {years[-1]} (--year takes another)")
    return years[-1]


def _say_plan(chosen: Sequence[Listed], wanted: Sequence[Listed], folder: Folder) -> None:
    size, free = sum(file.about_bytes for file in wanted), folder.free_bytes()
    console.say(
        f"PubMed {chosen[0].year}, files {mirror_listing.numbers_text(file.number for file in chosen)} into {folder.path}: "
        f"{len(chosen) - len(wanted):,} verified before, {len(wanted):,} to fetch"
        + (f", about {size / 1e9:,.2f} GB" if size else "")
    )
    if free is not None and size > free:
        console.say(f"{folder.path}: {free / 1e9:,.2f} GB free; that is too little for all of them")
    matches = [match for name in folder.names() if (match := mirror_listing.NAME.fullmatch(name))]
    if others := {2000 + int(match["year"]) for match in matches} - {chosen[0].year}:
        console.say(
            f"{folder.path}: also holds files of {', '.join(map(str, sorted(others)))}; the baseline of a year "
            "replaces everything of earlier years: remove them, or choose another --output"
        )


def _bring_all(
    wanted: Sequence[Listed], folder: Folder, client: http_client.Client, parallel: int, missing: dict[str, str]
) -> dict[str, int]:
    """Brings what can be had; returns the bytes that came of each, and keeps `missing` to the names of the others."""
    arrived: dict[str, int] = {}
    unanswered = 0
    about_bytes = sum(file.about_bytes for file in wanted)
    with console.transfer_progress(len(wanted), about_bytes, "downloading") as transfer:

        def bring(file: Listed) -> _Brought:
            return _bring(file, folder, client, transfer.advance)

        with contextlib.closing(_in_threads(bring, wanted, parallel, client.stop)) as outcomes:
            for file, outcome in outcomes:
                if isinstance(outcome, _Brought):
                    unanswered = 0
                    del missing[file.name]
                    arrived[file.name] = outcome.arrived_bytes
                    folder.record(file, outcome.md5)
                    transfer.file_done(file.about_bytes, outcome.arrived_bytes)
                elif isinstance(outcome, (http_client.UnreachableError, http_client.RejectedError, Damaged)):
                    missing[file.name] = str(outcome)
                    console.say(str(outcome))
                    unanswered = unanswered + 1 if isinstance(outcome, http_client.UnreachableError) else 0
                    if unanswered == UNANSWERED_FILES:
                        console.say(f"{unanswered} files in a row without an answer: stopping here")
                        break
                elif isinstance(outcome, OSError):
                    raise _of_disk(outcome, folder.path) from outcome
                else:
                    raise outcome
    return arrived


@dataclasses.dataclass(frozen=True)
class _Brought:
    """A file that is whole: its digest, and how many bytes came over the network for it."""

    md5: str
    arrived_bytes: int


def _bring(file: Listed, folder: Folder, client: http_client.Client, advance: Callable[[int], None]) -> _Brought:
    """Makes one file whole.

    Raises:
      http.NoAnswer, http.Refused, Damaged: it cannot be had; OSError: the disk does not take it.
    """
    arrived = 0

    def count(n: int) -> None:
        nonlocal arrived
        arrived += n
        advance(n)

    for more_tries in reversed(range(MD5_TRIES)):
        wanted = _wanted_md5(file, client)  # each time: the file may just be replaced on the server
        there = folder.md5(file.name)
        if there == wanted:
            return _Brought(wanted, arrived)
        partial = folder.partial(file.name, wanted, there)
        if md5_of(partial) != wanted:  # else killed just before the end
            client.fetch(file.url, partial, count)
        got = md5_of(partial)
        if got == wanted:
            folder.put(partial, file.name)
            return _Brought(wanted, arrived)
        files.remove(partial)
        if more_tries:
            console.say(f"{file.name}: got MD5 {got}, wanted {wanted}; fetching it again")
    raise Damaged(
        f"{file.name}: got MD5 {got}, wanted {wanted}, {MD5_TRIES} times; it is damaged on the server or on the way: "
        "run it again later, or name another --mirror"
    )


def _wanted_md5(file: Listed, client: http_client.Client) -> str:
    try:
        content = client.read(f"{file.url}.md5")
    except http_client.RejectedError as error:
        raise Damaged(f"{file.name}: cannot be verified, so it is not fetched: {error}") from error
    md5 = mirror_listing.parse_md5(content, file.name)
    if md5 is None:
        raise Damaged(
            f"{file.url}.md5: got {content[:60]!r}, wanted 'MD5({file.name})= ' and 32 hexadecimal digits; "
            "run it again later, or name another --mirror"
        )
    return md5


def _of_disk(error: OSError, folder: str) -> UserError:
    what, remedy = f"{error.strerror or error}", "mend that"
    if error.errno in files.FULL_DISK:
        what, remedy = "disk full", "free some space"
    return UserError(
        f"{error.filename or folder}: {what}; the files that are whole and what was begun of others are kept; "
        f"{remedy} and run the same command again"
    )


def _in_threads(
    function: Callable[[Listed], _Brought], tasks: Sequence[Listed], threads: int, stop: Callable[[], None]
) -> Iterator[tuple[Listed, _Brought | BaseException]]:
    """Yields (task, what the function returned or raised) as they end. Closing it stops the threads.

    The threads of an executor would hold up the end of the process for as long as a stalled connection does.
    """
    waiting: queue.SimpleQueue = queue.SimpleQueue()
    ended: queue.SimpleQueue = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)

    def work() -> None:
        with contextlib.suppress(queue.Empty, http_client.CancelledError):
            while True:
                task = waiting.get_nowait()
                try:
                    ended.put((task, function(task)))
                except http_client.CancelledError:
                    raise
                except BaseException as error:
                    ended.put((task, error))

    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(threads, len(tasks)))]
    for worker in workers:
        worker.start()
    try:
        for _ in tasks:
            yield ended.get()
    finally:
        stop()
        until = time.monotonic() + _SECONDS_TO_END
        for worker in workers:
            worker.join(max(0.0, until - time.monotonic()))
