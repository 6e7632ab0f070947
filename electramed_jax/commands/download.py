"""`electramed download`: fetches PubMed files from NLM's server."""

from __future__ import annotations

import argparse
import contextlib
from typing import Any

from electramed_jax.commands import takeover_flag
from electramed_jax.common import console

HELP = """Fetches PubMed's baseline and daily update files from NLM's server and verifies each against its MD5.

  electramed download --output pubmed                            # the whole baseline of this year
  electramed download --output pubmed --files 1-20               # its first twenty files
  electramed download --output pubmed --baseline --updates       # baseline and the update files since

After a kill, an interruption or a full disk the same command resumes, also in the middle of a file. A file gets its
final name when it is complete and verified. Verified files are skipped, unless they changed here or on the server. If
a file is not available, the others are still fetched; the command then lists the missing files and exits with 2.
Proxies and certificates are read from HTTPS_PROXY and REQUESTS_CA_BUNDLE, user and password of a mirror from ~/.netrc.
NLM's terms: https://ftp.ncbi.nlm.nih.gov/pubmed/baseline/README.txt"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from electramed_jax.common.storage.http_client import RetryPolicy
    from electramed_jax.data.download import download

    add, retry_policy = parser.add_argument, RetryPolicy()
    add(
        "--output",
        required=True,
        metavar="DIR",
        help="folder to write, local or gs:// (no resume within a file)",
    )
    add("--baseline", action="store_true", help="fetch the yearly baseline (default without --updates)")
    add("--updates", action="store_true", help="fetch the daily update files")
    add("--files", metavar="N-M", help="numbers of the files: 1-20 or 1,5,7-9 (default: all on the server)")
    add("--year", type=int, metavar="YYYY", help="production year (default: the newest on the server)")
    add(
        "--mirror",
        default=download.NLM,
        metavar="URL",
        help="URL of the folder that contains baseline/ and updatefiles/ (default %(default)s); http:// works only if "
        "given here",
    )
    add(
        "--parallel",
        type=int,
        default=download.DEFAULT_PARALLEL,
        metavar="N",
        help=f"files fetched at the same time (default %(default)s, at most {download.MAX_PARALLEL})",
    )
    add(
        "--retries",
        type=int,
        default=retry_policy.max_retries,
        metavar="N",
        help="retries after consecutive failures without progress, with growing waits or the server's Retry-After "
        "(default %(default)s)",
    )
    add(
        "--stall_seconds",
        type=float,
        default=retry_policy.timeout_seconds,
        metavar="S",
        help="seconds without a byte after which a connection is retried (default %(default)g)",
    )
    add("--verify", action="store_true", help="verify existing files again instead of trusting download.json")
    add("--dry_run", action="store_true", help="print the files to fetch, and stop")
    takeover_flag.add_argument(parser)


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common.storage import http_client
    from electramed_jax.common.storage.folder_lock import lock_folder
    from electramed_jax.data.download import download, mirror_listing

    chosen = [name for name in download.COLLECTIONS if getattr(args, name)]
    with contextlib.nullcontext() if args.dry_run else lock_folder(args.output, takeover=args.takeover):
        result = download.download(
            args.output,
            collections=chosen or ["baseline"],
            numbers=mirror_listing.parse_numbers(args.files) if args.files is not None else None,
            year=args.year,
            mirror=args.mirror,
            parallel=args.parallel,
            verify=args.verify,
            dry_run=args.dry_run,
            retry_policy=http_client.RetryPolicy(max_retries=args.retries, timeout_seconds=args.stall_seconds),
        )
    _print_summary(result, args.dry_run)
    return result


def _print_summary(result: dict[str, Any], dry_run: bool) -> None:
    if dry_run:
        console.say("nothing fetched: --dry_run")
        return
    console.say(
        f"{result['output']}: {result['files']:,} files complete, {result['bytes']:,} bytes; "
        f"{result['fetched']:,} fetched ({result['fetched_bytes']:,} bytes), {result['skipped']:,} already present, "
        f"{result['retried']:,} retries"
    )
    if result["missing"]:
        console.say(
            f"missing {len(result['missing']):,}: {', '.join(result['missing'])}; "
            "run the same command again to fetch only these"
        )
    else:
        console.say(f"next: electramed prepare --input '{result['output']}/*.xml.gz' --output documents")
