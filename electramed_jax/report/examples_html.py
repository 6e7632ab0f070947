"""Sentences with what both networks made of them, as HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence

from electramed_jax.data.tokenizer import vocab
from electramed_jax.report import examples
from electramed_jax.report.examples import Token

SHADE = 70  # per cent of the warning colour behind a token that is surely called replaced
KEY = (
    ("swap found", "replaced, and called so"),
    ("swap missed", "replaced, called original"),
    ("swap kept", "masked, and drawn as it was"),
    ("swap false", "original, called replaced"),
)


def of_run(title: str, step: int, rows: Sequence[Sequence[Token]]) -> str:
    """One card of several rows; `title` is HTML."""
    found = examples.counts(rows)
    said = (
        f"Step {step:,}. Of {found['tokens']:,} tokens {found['masked']:,} were masked and {found['replaced']:,} "
        f"replaced; the discriminator found {found['found']:,} of those and called {found['false_alarms']:,} originals "
        "replaced."
    )
    key = "".join(f'<span><span class="{name}">word</span> {meaning}</span>' for name, meaning in KEY)
    shade = f'<span><span class="t" style="{_shade(1.0)}">word</span> the darker, the likelier replaced to it</span>'
    body = "".join(_row(row) for row in rows)
    return (
        f'<div class="card"><h3>{title}</h3><p class="note">{said}</p><div class="key">{key}{shade}</div>{body}</div>'
    )


def _row(row: Sequence[Token]) -> str:
    tokens = "".join(_token(token) for token in row)
    guesses = [_guess(token) for token in row if token.masked and token.guesses]
    told = f"<details><summary>what the generator thought</summary><pre>{chr(10).join(guesses)}</pre></details>"
    return f'<p class="text">{tokens}</p>{told if guesses else ""}'


def _token(token: Token) -> str:
    """With a space before it, unless it goes on with a word."""
    verdict = token.replaced_probability
    said = f"replaced: {verdict:.0%}" if verdict is not None else ""
    called = verdict is not None and verdict > 0.5
    space = "" if token.text.startswith("##") and not token.masked else " "
    shown, before = _piece(token.text), ""
    if token.replaced:
        kind = "swap found" if called else "swap missed"
        before = f"<s>{_piece(token.original)}</s>"
    elif called:
        kind = "swap false"
    elif token.masked:
        kind = "swap kept"
    else:
        kind = "end" if token.text in (vocab.CLS, vocab.SEP) else "t"
    style = f' style="{_shade(verdict)}"' if verdict is not None else ""
    return f'{space}<span class="{kind}" title="{said}"{style}>{before}{shown}</span>'


def _guess(token: Token) -> str:
    guesses = ", ".join(f"{_text(text)} {probability:.0%}" for text, probability in token.guesses)
    return f"{_text(token.original)} → drew {_text(token.text)}   ({guesses})"


def _shade(probability: float) -> str:
    return f"background:color-mix(in srgb,var(--warn) {probability * SHADE:.0f}%,transparent)"


def _piece(text: str) -> str:
    return _text(text.removeprefix("##"))


def _text(text: str) -> str:
    return html.escape(text)
