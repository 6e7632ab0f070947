"""A served model without a network of parameters, and a server in a thread."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import requests

from electramed_jax.serve import schemas, server
from electramed_jax.serve.app import create_app
from electramed_jax.serve.limits import Limits
from electramed_jax.serve.services import EntityService, Service

DEFAULT_LIMITS = Limits()


class CapitalService:
    """Predicts each word that begins with a capital letter as an entity of type "Name"."""

    name, kind, labels, formats = "capitals", "entities", ("Disease", "Name"), ()
    input_type, result_type = schemas.TextInput, schemas.EntityResult
    fields, render = EntityService.fields, EntityService.render

    def __init__(self, before: Callable[[], None] = lambda: None):
        """`before` is called by each prediction."""
        self._before = before

    def predict(self, inputs: Sequence[schemas.TextInput]) -> list[schemas.EntityResult]:
        self._before()
        return [
            schemas.EntityResult(
                entities=[
                    schemas.Entity(start=m.start(), end=m.end(), text=m[0], type="Name", confidence=0.875)
                    for m in re.finditer(r"\b[A-Z]\w*", given.text)
                ]
            )
            for given in inputs
        ]


@contextlib.contextmanager
def running(service: Service, limits: Limits = DEFAULT_LIMITS, token: str | None = None) -> Iterator[str]:
    """Serves on a free port of 127.0.0.1; yields the address. The server has ended when the block has."""
    with server.bind("127.0.0.1", 0) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server_ = server.make_server(create_app(service, limits, token))
        thread = threading.Thread(target=server_.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            wait_until(lambda: server_.started)
            yield address
        finally:
            server_.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Returns when the condition holds; fails after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.01)


def post(address: str, *texts: str, **options) -> requests.Response:
    """Sends texts to the JSON interface."""
    return requests.post(f"{address}/api/predict", json={"inputs": [{"text": text} for text in texts]}, **options)
