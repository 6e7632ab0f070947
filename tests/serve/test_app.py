"""The page and the JSON interface over HTTP: escaping, limits, access, queue, shutdown."""

from __future__ import annotations

import concurrent.futures
import contextlib
import html.parser
import threading

import pytest
import requests
from try_page import CapitalService, post, running, wait_until

from electramed_jax.serve.limits import Limits

HOSTILE = "<script>alert(1)</script> \"Fever\" & 'Pain' </textarea><img src=x onerror=alert(1)>"
SMALL = Limits(max_text=1000, max_pending=2)


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the text of each."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._open.append(tag)
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        for tag in self._open:
            self.texts[tag][-1] += data


@pytest.fixture(scope="module")
def address():
    with running(CapitalService(), SMALL) as url:
        yield url


def test_the_page_marks_the_entities_of_a_submitted_text(address):
    page = Page(requests.post(address, data={"text": "Fever and\nPain"}).text)
    assert page.texts["mark"] == ["FeverName 0.88", "PainName 0.88"]
    assert "Fever and\nPain" in page.texts["textarea"][0], "the text stays in the form"
    assert page.texts["td"][:5] == ["Fever", "Name", "0.875", "0", "5"]


def test_a_hostile_text_adds_no_tag_and_the_policy_allows_no_script(address):
    answer = requests.post(address, data={"text": HOSTILE})
    page, harmless = Page(answer.text), Page(requests.post(address, data={"text": "Fever"}).text)
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in harmless.tags}
    assert HOSTILE in page.texts["textarea"][0]
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script" not in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


def test_the_page_loads_nothing(address):
    for page in (Page(requests.get(address).text), Page(requests.post(address, data={"text": "Fever"}).text)):
        loading = {"src", "srcset", "data", "background", "style", "poster"}
        assert not [(tag, name) for tag, found in page.tags for name in found if name in loading or name[:2] == "on"]
        assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "img", "base"}


def test_offsets_are_those_of_the_text_that_was_sent(address):
    text = "  \U0001f9ec no\r\n\tFever \u202e here\u0301, Pain"
    (result,) = post(address, text).json()["results"]
    assert [text[one["start"] : one["end"]] for one in result["entities"]] == ["Fever", "Pain"]


@pytest.mark.parametrize(
    "body, where",
    [
        ('{"inputs": []}', "body.inputs"),
        ('{"inputs": [{"text": ""}]}', "body.inputs.0.text"),
        ('{"inputs": [{"text": 3}]}', "body.inputs.0.text"),
        ('{"inputs": [{"text": "\\ud800"}]}', "body.inputs.0.text"),
        ('{"inputs": [{"text": "a", "txet": "b"}]}', "body.inputs.0.txet"),
        ('{"inputs": [', "body"),
    ],
    ids=["no input", "empty text", "a number", "half a surrogate pair", "unknown field", "no JSON"],
)
def test_a_wrong_request_is_refused_and_names_the_place(address, body, where):
    answer = requests.post(f"{address}/api/predict", data=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422 and answer.json()["detail"][0]["where"].startswith(where)


def test_deeply_nested_json_is_refused(address):
    json_type = {"Content-Type": "application/json"}
    assert requests.post(f"{address}/api/predict", data="[" * 5000, headers=json_type).status_code == 400


def test_the_length_of_a_text_and_of_a_request_is_limited(address):
    assert post(address, "a" * 1000).status_code == 200
    assert post(address, "a" * 600, "a" * 401).status_code == 413
    assert requests.post(address, data={"text": "a" * 1001}).status_code == 413
    assert post(address, "a" * 100_000).status_code == 413
    assert post(address, "Fever").status_code == 200


def test_a_request_of_unknown_length_is_refused_while_it_is_sent(address):
    """The limit is about 0.1 MB of 100; what is beyond it waits in the buffers of both sides."""
    sent = []
    chunks = (sent.append(0) or b"x" * 2**20 for _ in range(100))
    with contextlib.suppress(requests.ConnectionError):  # closed by the server while the client was sending
        assert requests.post(f"{address}/api/predict", data=chunks).status_code == 413
    assert len(sent) < 50
    assert post(address, "Fever").status_code == 200


def test_pages_of_other_sites_cannot_use_a_local_server(address):
    assert requests.get(address, headers={"Host": "rebound.example"}).status_code == 421
    assert requests.post(address, data={"text": "a"}, headers={"Origin": "https://other.example"}).status_code == 403
    assert requests.post(address, data={"text": "a"}, headers={"Origin": "null"}).status_code == 403
    assert requests.post(address, data={"text": "a"}, headers={"Origin": address}).status_code == 200


def test_a_token_is_needed_and_leaves_the_address(address):
    with running(CapitalService(), token="secret123") as url:
        for headers in ({}, {"Authorization": "Bearer secret124"}, {"Cookie": "electramed_token=x"}):
            assert requests.get(url, headers=headers).status_code == 401
            assert post(url, "Fever", headers=headers).status_code == 401
        assert requests.get(f"{url}/?token=wrong").status_code == 401
        assert post(url, "Fever", headers={"Authorization": "Bearer secret123"}).status_code == 200
        with requests.Session() as browser:
            answer = browser.get(f"{url}/?token=secret123")
            assert answer.status_code == 200 and "secret123" not in answer.url + answer.text
            assert browser.post(url, data={"text": "Fever"}).status_code == 200
        assert requests.get(f"{url}/health").status_code == 200


def test_the_openapi_description_names_the_types_and_limits(address):
    described = requests.get(f"{address}/openapi.json").json()
    predict = described["paths"]["/api/predict"]["post"]
    assert set(predict["responses"]) == {"200", "401", "413", "422", "503"}
    assert {"start", "end", "type", "confidence"} <= described["components"]["schemas"]["Entity"]["properties"].keys()
    model = requests.get(f"{address}/api/model").json()
    assert (model["kind"], model["labels"], model["max_text"]) == ("entities", ["Disease", "Name"], 1000)


def test_predictions_wait_for_their_turn_and_too_many_are_refused():
    entered, release, running_now = threading.Semaphore(0), threading.Event(), []

    def block() -> None:
        running_now.append(1)
        assert len(running_now) == 1, "one at a time"
        entered.release()
        release.wait(60)
        running_now.pop()

    with running(CapitalService(block), SMALL) as url, concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(post, url, "Fever")
        assert entered.acquire(timeout=60)
        others = [pool.submit(post, url, text) for text in ("Pain", "Rash")]
        done, waiting = concurrent.futures.wait(others, timeout=60, return_when=concurrent.futures.FIRST_COMPLETED)
        busy = done.pop().result()
        assert busy.status_code == 503 and busy.headers["Retry-After"] == "1"
        page = requests.post(url, data={"text": "Rash"})
        assert page.status_code == 503 and "Rash" in Page(page.text).texts["textarea"][0]
        release.set()
        assert [call.result().status_code for call in (first, *waiting)] == [200, 200]


def test_a_server_that_stops_answers_the_request_that_runs():
    entered, release = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        release.wait(60)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        with running(CapitalService(block)) as url:
            answer = pool.submit(post, url, "Fever")
            assert entered.wait(60)
            pool.submit(lambda: (wait_until(lambda: _refuses(url)), release.set()))
        assert answer.result().status_code == 200


def _refuses(url: str) -> bool:
    try:
        requests.get(url, timeout=5)
    except requests.ConnectionError:
        return True
    return False


def test_an_error_of_the_model_is_not_shown_to_the_client():
    with running(CapitalService(lambda: 1 / 0)) as url:
        answer = post(url, "Fever")
        assert answer.status_code == 500 and "division" not in answer.text and "server's log" in answer.text
        assert requests.get(f"{url}/health").status_code == 200
