"""Who may send requests: the token, the Host header and the origin of a form; headers of each response.

A page of another site cannot use the server. A loopback server answers only to loopback names, so that a foreign name
that resolves to 127.0.0.1 (DNS rebinding) is refused; and a form that another origin submits is refused.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")
COOKIE = "electramed_token"
HEALTH = "/health"


class Access:
    """ASGI middleware: refuses requests without the token, of a foreign host name or of a foreign origin."""

    def __init__(self, app: ASGIApp, token: str | None, headers: Mapping[str, str]):
        """Wraps `app`.

        Args:
          token: wanted as a cookie, a bearer token or `?token=`; None: only loopback names are answered.
          headers: added to each response.
        """
        self._app, self._token, self._headers = app, token, dict(headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers the request, or refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        refused = self._refuse(scope)
        await (refused or self._app)(scope, receive, send_with_headers)

    def _refuse(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._token is None and urlsplit(f"//{host}").hostname not in LOOPBACK:
            return PlainTextResponse(f"unknown host {host!r}; open http://127.0.0.1 with the port of the server\n", 421)
        origin = headers.get("origin")
        if scope["method"] not in ("GET", "HEAD") and origin is not None and urlsplit(origin).netloc != host:
            return PlainTextResponse("a page of another site sent this request; it is refused\n", 403)
        if self._token is None or scope["path"] == HEALTH:
            return None
        query = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["method"] == "GET" and scope["path"] == "/" and self._is_token(query):
            response = RedirectResponse("/", 303)  # the token does not stay in the address bar
            response.set_cookie(COOKIE, query, httponly=True, samesite="strict")
            return response
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(bearer.strip()):
            return None
        if self._is_token(_cookie(headers.get("cookie", ""))):
            return None
        return PlainTextResponse(
            "no token or a wrong one; open the address that electramed serve printed, or send it as "
            '"Authorization: Bearer TOKEN"\n',
            401,
            {"WWW-Authenticate": "Bearer"},
        )

    def _is_token(self, value: str) -> bool:
        return self._token is not None and hmac.compare_digest(value.encode(), self._token.encode())


def _cookie(header: str) -> str:
    try:
        cookies = SimpleCookie(header)
    except CookieError:
        return ""
    return cookies[COOKIE].value if COOKIE in cookies else ""
