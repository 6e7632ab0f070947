"""`electramed download`: PubMed files from NLM's server to a folder."""

from __future__ import annotations

import argparse
from typing import Any

from electramed_jax.common import console

HELP = """fetch PubMed's baseline and daily update files from NLM's server, each verified against the MD5 beside it

  electramed download --output pubmed                            the whole baseline of this year
  electramed download --output pubmed --files 1-20               its first twenty files
  electramed download --output pubmed --baseline --updates       baseline and the update files since

Killed, interrupted, or out of disk: the same command goes on, in the middle of a file too. A file appears under its
name when it is whole. Files that were verified before are skipped at once, unless they changed here or on the server.
Where a file cannot be had, the others are fetched all the same; the command ends with the list of what is missing and
exit code 2. The server's proxies and certificates are taken from HTTPS_PROXY and REQUESTS_CA_BUNDLE, a mirror's user
and password from ~/.netrc. NLM's terms: https://ftp.ncbi.nlm.nih.gov/pubmed/baseline/README.txt"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from electramed_jax.common.storage.http_client import RetryPolicy
    from electramed_jax.data.download import download

    add, retry_policy = parser.add_argument, RetryPolicy()
    add("--output", required=True, metavar="DIR", help="folder to fill; gs:// too, where a broken file begins anew")
    add("--baseline", action="store_true", help="the yearly baseline (so without --updates)")
    add("--updates", action="store_true", help="the daily update files, numbered on from the baseline's last")
    add("--files", metavar="N-M", help="numbers of the files, as 1-20 or 1,5,7-9 (default: all the server has)")
    add("--year", type=int, metavar="YYYY", help="production year (default: the newest the server has)")
    add(
        "--mirror",
        default=download.NLM,
        metavar="URL",
        help="the folder above baseline/ and updatefiles/ (default %(default)s); http:// only if given here",
    )
    add(
        "--parallel",
        type=int,
        default=download.DEFAULT_PARALLEL,
        metavar="N",
        help=f"files at once (default %(default)s, at most {download.MAX_PARALLEL})",
    )
    add(
        "--retries",
        type=int,
        default=retry_policy.max_retries,
        metavar="N",
        help="failures in a row, without a byte more in between, that are tried again after a growing wait, or the "
        "wait the server asks for (default %(default)s)",
    )
    add(
        "--stall_seconds",
        type=float,
        default=retry_policy.timeout_seconds,
        metavar="S",
        help="without a byte, after which a connection counts as broken (default %(default)g)",
    )
    add("--verify", action="store_true", help="read files that are there again instead of trusting download.json")
    add("--dry_run", action="store_true", help="say what there is to fetch, and stop")


def run(args: argparse.Namespace) -> dict[str, Any]:
    from electramed_jax.common.storage import http_client
    from electramed_jax.data.download import download, mirror_listing

    chosen = [name for name in download.COLLECTIONS if getattr(args, name)]
    account = download.download(
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
    _say(account, args.dry_run)
    return account


def _say(account: dict[str, Any], dry_run: bool) -> None:
    if dry_run:
        console.say("nothing fetched: --dry_run")
        return
    console.say(
        f"{account['output']}: {account['files']:,} files whole, {account['bytes']:,} bytes; "
        f"{account['fetched']:,} fetched ({account['fetched_bytes']:,} bytes), {account['skipped']:,} were there, "
        f"{account['retried']:,} retries"
    )
    if account["missing"]:
        console.say(
            f"missing {len(account['missing']):,}: {', '.join(account['missing'])}; "
            "the same command tries them again, and nothing else"
        )
    else:
        console.say(f"next: electramed prepare --input '{account['output']}/*.xml.gz' --output documents")
