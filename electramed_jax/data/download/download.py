"""Downloads PubMed's baseline and daily update files from NLM's server: verified, resumable, few connections."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
import time
import urllib.parse
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any

import electramed_jax
from electramed_jax.common import console
from electramed_jax.common.errors import EXIT_DONE, EXIT_USER_ERROR, UserError
from electramed_jax.common.storage import files, http_client
from electramed_jax.data.download import mirror_listing
from electramed_jax.data.download.download_dir import DownloadDir, file_md5
from electramed_jax.data.download.mirror_listing import ListedFile

NLM = "https://ftp.ncbi.nlm.nih.gov/pubmed"
COLLECTIONS = {"baseline": "baseline", "updates": "updatefiles"}  # name -> folder on the server
DEFAULT_PARALLEL = 3
MAX_PARALLEL = 8
MAX_MD5_ATTEMPTS = 3
MAX_TIMEOUT_SECONDS = 3600.0
MAX_UNREACHABLE_FILES = 5  # in a row: the server is down, the other files are not tried
_JOIN_SECONDS = 0.5


class VerificationError(UserError):
    """A file on the server does not match its `.md5`, or has none."""


def download(
    output_dir: str,
    *,
    collections: Sequence[str] = ("baseline",),
    numbers: Collection[int] | None = None,
    year: int | None = None,
    mirror: str = NLM,
    parallel: int = DEFAULT_PARALLEL,
    verify: bool = False,
    dry_run: bool = False,
    retry_policy: http_client.RetryPolicy = http_client.RetryPolicy(),
) -> dict[str, Any]:
    """Downloads the selected files that are not complete in `output_dir`; returns a summary of the run.

    A file that cannot be downloaded does not stop the run: the summary lists it in "missing" and has exit code 2.

    Args:
      output_dir: local or remote folder.
      collections: keys of COLLECTIONS.
      numbers: NNNN of the file names; None selects all.
      year: production year; None selects the newest on the server.
      mirror: URL of the folder that contains the collections. It may be http://; a redirect to http:// is an error.
      parallel: files downloaded at once, at most MAX_PARALLEL.
      verify: compute the MD5 of existing files again instead of using the one in download.json.
      dry_run: log what would be downloaded, and stop.
      retry_policy: of each request.

    Raises:
      UserError: options out of range, a page without a list of files, or a disk error.
    """
    mirror = _check_mirror(mirror)
    if not 1 <= parallel <= MAX_PARALLEL:
        raise UserError(f"--parallel {parallel}: wanted 1 to {MAX_PARALLEL}; the server is shared by all users")
    if retry_policy.max_retries < 0 or not 0 < retry_policy.timeout_seconds <= MAX_TIMEOUT_SECONDS:
        raise UserError(
            f"--retries {retry_policy.max_retries} --stall_seconds {retry_policy.timeout_seconds:g}: wanted 0 or more "
            f"retries, and more than 0 seconds, at most {MAX_TIMEOUT_SECONDS:g}"
        )
    start, folder = time.monotonic(), DownloadDir(output_dir)
    allow_http = mirror.startswith("http://")
    client = http_client.Client(f"electramed_jax/{electramed_jax.__version__}", retry_policy, allow_http=allow_http)
    listed: list[ListedFile] = []
    for name in collections:
        url = f"{mirror}/{COLLECTIONS[name]}/"
        listed += mirror_listing.parse_listing(client.read(url), url)
    selected = mirror_listing.select_files(listed, _newest_year(listed) if year is None else year, numbers)
    pending = [file for file in selected if verify or not folder.has(file)]
    _log_plan(selected, pending, folder)
    received_bytes, missing = {}, {file.name: "not tried" for file in pending}
    if not dry_run:
        with folder.lock():
            received_bytes = _fetch_all(pending, folder, client, parallel, missing)
    complete = [file.name for file in selected if file.name not in missing]
    fetched = sum(count > 0 for count in received_bytes.values())
    return {
        "output": folder.path,
        "year": selected[0].year,
        "files": len(complete),
        "bytes": sum(map(folder.recorded_bytes, complete)),
        "fetched": fetched,
        "fetched_bytes": sum(received_bytes.values()),
        "skipped": len(complete) - fetched,
        "retried": client.retry_count,
        "seconds": round(time.monotonic() - start, 1),
        "missing": missing,
        "exit_code": EXIT_USER_ERROR if missing and not dry_run else EXIT_DONE,
    }


def _check_mirror(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if "@" in parts.netloc:
        raise UserError("--mirror: got a URL with a user name, which logs would show; put it into ~/.netrc")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UserError(f"--mirror {url}: wanted https://HOST/FOLDER, the folder with baseline/ and updatefiles/")
    return url.rstrip("/")


def _newest_year(listed: Sequence[ListedFile]) -> int:
    years = sorted({file.year for file in listed})
    if len(years) > 1:
        counts = " and ".join(f"{sum(file.year == year for file in listed):,} files of {year}" for year in years)
        console.say(f"the server has {counts}; selecting {years[-1]} (--year selects another)")
    return years[-1]


def _log_plan(selected: Sequence[ListedFile], pending: Sequence[ListedFile], folder: DownloadDir) -> None:
    size, free = sum(file.approximate_bytes for file in pending), folder.free_bytes()
    numbers = mirror_listing.format_numbers(file.number for file in selected)
    console.say(
        f"PubMed {selected[0].year}, files {numbers} into {folder.path}: "
        f"{len(selected) - len(pending):,} verified before, {len(pending):,} to fetch"
        + (f", about {size / 1e9:,.2f} GB" if size else "")
    )
    if free is not None and size > free:
        console.say(f"{folder.path}: {free / 1e9:,.2f} GB free, which is not enough for all files")
    matches = [match for name in folder.names() if (match := mirror_listing.FILE_NAME.fullmatch(name))]
    if others := {2000 + int(match["year"]) for match in matches} - {selected[0].year}:
        console.say(
            f"{folder.path}: also contains files of {', '.join(map(str, sorted(others)))}; the baseline of a year "
            "replaces all files of earlier years: remove them, or choose another --output"
        )


def _fetch_all(
    pending: Sequence[ListedFile],
    folder: DownloadDir,
    client: http_client.Client,
    parallel: int,
    missing: dict[str, str],
) -> dict[str, int]:
    """Downloads files in parallel; returns the bytes received for each complete file.

    Removes the complete files from `missing`, and sets the reason for the others.
    """
    received_bytes: dict[str, int] = {}
    unreachable = 0
    total_bytes = sum(file.approximate_bytes for file in pending)
    with console.transfer_progress(len(pending), total_bytes, "downloading") as transfer:

        def fetch(file: ListedFile) -> _FetchedFile:
            return _fetch(file, folder, client, transfer.advance)

        with contextlib.closing(_run_in_threads(fetch, pending, parallel, client.stop)) as outcomes:
            for file, outcome in outcomes:
                if isinstance(outcome, _FetchedFile):
                    unreachable = 0
                    del missing[file.name]
                    received_bytes[file.name] = outcome.received_bytes
                    folder.record(file, outcome.md5)
                    transfer.file_done(file.approximate_bytes, outcome.received_bytes)
                elif isinstance(outcome, (http_client.UnreachableError, http_client.RejectedError, VerificationError)):
                    missing[file.name] = str(outcome)
                    console.say(str(outcome))
                    unreachable = unreachable + 1 if isinstance(outcome, http_client.UnreachableError) else 0
                    if unreachable == MAX_UNREACHABLE_FILES:
                        console.say(f"{unreachable} files in a row without a response: stopping")
                        break
                elif isinstance(outcome, OSError):
                    raise _disk_error(outcome, folder.path) from outcome
                else:
                    raise outcome
    return received_bytes


@dataclasses.dataclass(frozen=True)
class _FetchedFile:
    """A complete file: its MD5, and the bytes received over the network for it."""

    md5: str
    received_bytes: int


def _fetch(
    file: ListedFile, folder: DownloadDir, client: http_client.Client, advance: Callable[[int], None]
) -> _FetchedFile:
    """Downloads and verifies one file, unless it is complete.

    Raises:
      UnreachableError: the server does not respond.
      RejectedError: the server refuses the request.
      VerificationError: the file does not match its MD5, or has none.
      OSError: a disk error.
    """
    received = 0

    def count(num_bytes: int) -> None:
        nonlocal received
        received += num_bytes
        advance(num_bytes)

    for attempts_left in reversed(range(MAX_MD5_ATTEMPTS)):
        wanted = _fetch_md5(file, client)  # at each attempt: the server may be replacing the file
        existing = folder.md5(file.name)
        if existing == wanted:
            return _FetchedFile(wanted, received)
        partial = folder.partial_path(file.name, wanted, existing)
        if file_md5(partial) != wanted:  # equal if an earlier run was killed after the last byte
            client.fetch(file.url, partial, count)
        got = file_md5(partial)
        if got == wanted:
            folder.put(partial, file.name)
            return _FetchedFile(wanted, received)
        files.remove(partial)
        if attempts_left:
            console.say(f"{file.name}: got MD5 {got}, wanted {wanted}; downloading it again")
    raise VerificationError(
        f"{file.name}: got MD5 {got}, wanted {wanted}, {MAX_MD5_ATTEMPTS} times; it is damaged on the server "
        "or in transit: run the command again later, or give another --mirror"
    )


def _fetch_md5(file: ListedFile, client: http_client.Client) -> str:
    try:
        content = client.read(f"{file.url}.md5")
    except http_client.RejectedError as error:
        raise VerificationError(f"{file.name}: not downloaded, because it cannot be verified: {error}") from error
    md5 = mirror_listing.parse_md5(content, file.name)
    if md5 is None:
        raise VerificationError(
            f"{file.url}.md5: got {content[:60]!r}, wanted 'MD5({file.name})= ' and 32 hexadecimal digits; "
            "run the command again later, or give another --mirror"
        )
    return md5


def _disk_error(error: OSError, folder: str) -> UserError:
    cause, fix = f"{error.strerror or error}", "fix it"
    if error.errno in files.FULL_DISK:
        cause, fix = "disk full", "free some space"
    return UserError(
        f"{error.filename or folder}: {cause}; complete files and partial files are kept; "
        f"{fix} and run the same command again"
    )


def _run_in_threads(
    function: Callable[[ListedFile], _FetchedFile], tasks: Sequence[ListedFile], threads: int, stop: Callable[[], None]
) -> Generator[tuple[ListedFile, _FetchedFile | BaseException], None, None]:
    """Yields (task, result or exception) in the order of completion. Closing the generator stops the threads.

    An executor is not used: its threads delay the exit of the process as long as a connection stalls.
    """
    pending: queue.SimpleQueue[ListedFile] = queue.SimpleQueue()
    completed: queue.SimpleQueue[tuple[ListedFile, _FetchedFile | BaseException]] = queue.SimpleQueue()
    for task in tasks:
        pending.put(task)

    def work() -> None:
        with contextlib.suppress(queue.Empty, http_client.CancelledError):
            while True:
                task = pending.get_nowait()
                try:
                    completed.put((task, function(task)))
                except http_client.CancelledError:
                    raise
                except BaseException as error:  # noqa: BLE001 (raised in the main thread)
                    completed.put((task, error))

    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(threads, len(tasks)))]
    for worker in workers:
        worker.start()
    try:
        for _ in tasks:
            yield completed.get()
    finally:
        stop()
        deadline = time.monotonic() + _JOIN_SECONDS
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))
