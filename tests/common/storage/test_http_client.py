"""Tests of the HTTP client against a local server, also over TLS. `tests/data/download` tests damaged downloads."""

from __future__ import annotations

import email.utils
import gzip
import threading
import time

import pubmed_server as faults
import pytest
import trustme
from pubmed_server import NAME, PubMedServer, content

from electramed_jax.common.errors import UserError
from electramed_jax.common.storage.http_client import (
    CancelledError,
    Client,
    RejectedError,
    RetryPolicy,
    UnreachableError,
)

PATH = f"/baseline/{NAME.format(1)}"
QUICK = RetryPolicy(max_retries=2, timeout_seconds=5, initial_backoff_seconds=0.001)


@pytest.fixture
def server():
    with PubMedServer((1,)).running() as running:
        yield running


@pytest.fixture
def encrypted(tmp_path):
    """Yields an https server, and the file of the certificate authority that signed its certificate."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    certificate = authority.issue_cert("127.0.0.1")
    with PubMedServer((1,)).running(certificate.configure_cert) as running:
        yield running, str(tmp_path / "authority.pem")


def client(**options) -> Client:
    return Client("test", QUICK, **{"allow_http": True} | options)


def fetched(server, path, **options) -> bytes:
    client(**options).fetch(server.url + PATH, str(path), lambda n: None)
    return path.read_bytes()


def test_an_unknown_certificate_is_rejected_at_once_and_nothing_is_downloaded(encrypted, tmp_path, monkeypatch):
    server, _ = encrypted
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(RejectedError, match=r"certificate verify failed.*REQUESTS_CA_BUNDLE"):
        fetched(server, tmp_path / "file", allow_http=False)
    assert server.requests == [] and not (tmp_path / "file").exists()


def test_a_certificate_trusted_by_the_environment_is_accepted(encrypted, tmp_path, monkeypatch):
    server, authority = encrypted
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority)
    assert fetched(server, tmp_path / "file", allow_http=False) == content(1)


def test_a_redirect_from_https_to_http_is_rejected_and_not_followed(encrypted, server, tmp_path, monkeypatch):
    secure, authority = encrypted
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority)
    secure.faults[PATH] = [faults.respond(302, Location=server.url + PATH)]
    with pytest.raises(
        RejectedError, match="not followed .*http://127.* a redirect from https:// to http:// is not allowed"
    ):
        fetched(secure, tmp_path / "file", allow_http=False)
    assert server.requests == []


def test_a_redirect_is_followed_otherwise(server, tmp_path):
    server.faults["/baseline/"] = [faults.respond(302, Location=server.url + PATH)]
    assert client().read(f"{server.url}/baseline/") == content(1)


def test_bytes_are_not_decoded_if_a_server_declares_a_gz_file_as_encoded_text(server, tmp_path):
    def mislabels(handler, data):
        handler.head(200, len(data), {"Content-Encoding": "x-gzip", "Content-Type": "text/xml"})
        handler.wfile.write(data)

    server.files[PATH] = gzip.compress(b"<PubmedArticleSet/>")
    server.faults[PATH] = [mislabels]
    assert fetched(server, tmp_path / "file") == server.files[PATH]


def test_a_truncated_chunked_body_is_resumed_at_its_last_byte(server, tmp_path):
    def breaks_off(handler, data):
        handler.head(200, None, {"Transfer-Encoding": "chunked"})
        handler.wfile.write(b"%x\r\n" % 20_000 + data[:20_000] + b"\r\n")
        handler.close_connection = True

    server.faults[PATH] = [breaks_off]
    assert fetched(server, tmp_path / "file") == content(1)
    assert [headers.get("Range") for headers in server.request_headers(PATH)] == [None, "bytes=20000-"]


def test_a_range_other_than_the_requested_one_is_not_appended(server, tmp_path):
    def answers_another(handler, data):
        handler.head(206, 10, {"Content-Range": f"bytes 0-9/{len(data)}"})
        handler.wfile.write(data[:10])

    server.faults[PATH] = [faults.close_after(20_000), answers_another]
    assert fetched(server, tmp_path / "file") == content(1)


def test_failures_that_delivered_some_bytes_do_not_count_as_consecutive(server, tmp_path):
    def brings(handler, data):
        first = int(handler.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        handler.head(206, len(data) - first, {"Content-Range": f"bytes {first}-{len(data) - 1}/{len(data)}"})
        handler.wfile.write(data[first : first + 5_000])
        handler.close_connection = True

    server.faults[PATH] = [brings] * 9
    assert fetched(server, tmp_path / "file") == content(1)
    assert len(server.request_headers(PATH)) == 10 > QUICK.max_retries


@pytest.mark.parametrize("status", [429, 500, 503])
def test_requests_to_an_overloaded_server_are_retried_up_to_the_limit(server, status):
    server.faults[PATH] = [faults.respond(status)] * 3
    http = client()
    with pytest.raises(UnreachableError, match=rf"HTTP {status} .* \(consecutive failures: 3\); run it again later"):
        http.read(server.url + PATH)
    assert http.retry_count == 2
    assert http.read(server.url + PATH) == content(1)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_rejected_request_is_not_retried(server, status):
    server.faults[PATH] = [faults.respond(status)]
    with pytest.raises(RejectedError, match=rf"{PATH}: HTTP {status} "):
        client().read(server.url + PATH)
    assert len(server.requests) == 1


def test_a_retry_after_sent_to_one_thread_delays_all_threads(server):
    http, responded = client(), threading.Event()

    def overloaded(handler, data):
        faults.respond(503, Retry_After="1")(handler, data)
        responded.set()

    server.faults[PATH] = [overloaded]
    thread = threading.Thread(target=http.read, args=(server.url + PATH,))
    thread.start()
    responded.wait()
    responded_at = time.monotonic()
    while not http.retry_count:  # until the other thread has received the response
        assert time.monotonic() < responded_at + 10
        time.sleep(0.001)
    http.read(f"{server.url}/baseline/")
    assert time.monotonic() - responded_at >= 0.9
    thread.join()


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_retry_after_of_hours_is_an_error_that_names_the_wait(server, form):
    retry_after = "7200" if form == "seconds" else email.utils.formatdate(time.time() + 7200, usegmt=True)
    server.faults[PATH] = [faults.respond(503, Retry_After=retry_after)]
    with pytest.raises(
        UnreachableError, match=r"the server requests a wait of (2 h|1 h 59 min|1 h 60 min); run it again after that"
    ):
        client().read(server.url + PATH)
    assert len(server.requests) == 1


def test_an_invalid_retry_after_is_ignored(server):
    server.faults[PATH] = [faults.respond(503, Retry_After="soon")]
    assert client().read(server.url + PATH) == content(1)


def test_a_refused_connection_is_reported_with_the_message_of_the_operating_system(server):
    with PubMedServer().running() as stopped:
        pass
    with pytest.raises(
        UnreachableError, match=r"^http://127\.0\.0\.1:\d+/x: Connection refused \(consecutive failures: 3\)"
    ):
        client().read(f"{stopped.url}/x")


def test_a_page_that_is_too_large_is_rejected(server, monkeypatch):
    monkeypatch.setattr("electramed_jax.common.storage.http_client._MAX_PAGE_BYTES", 40_000)
    with pytest.raises(UserError, match="got more than 40,000 bytes, wanted a page"):
        client().read(server.url + PATH)


def test_stop_ends_a_long_wait_at_once(server):
    http = Client("test", RetryPolicy(initial_backoff_seconds=1000, max_backoff_seconds=1000), allow_http=True)

    def overloaded_and_stopped(handler, data):
        faults.respond(503)(handler, data)
        threading.Timer(0.05, http.stop).start()

    server.faults[PATH] = [overloaded_and_stopped]
    with pytest.raises(CancelledError):
        http.read(server.url + PATH)


def test_the_backoff_doubles_up_to_its_maximum_and_is_random():
    http = Client("test", RetryPolicy(initial_backoff_seconds=1, max_backoff_seconds=60))
    for failures, longest in ((1, 1), (2, 2), (4, 8), (7, 60), (5_000, 60)):
        waits = {http._backoff(failures) for _ in range(50)}
        assert longest / 2 <= min(waits) < max(waits) <= longest
