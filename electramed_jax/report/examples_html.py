"""HTML of validation rows with the predictions of both networks."""

from __future__ import annotations

import html
from collections.abc import Sequence

from electramed_jax.data.tokenizer import vocab
from electramed_jax.report import examples
from electramed_jax.report.examples import Token

MAX_SHADE = 70  # percentage of the warning colour behind a token with a replaced probability of 1
LEGEND = (
    ("swap found", "replaced, and detected"),
    ("swap missed", "replaced, not detected"),
    ("swap kept", "masked, and sampled unchanged"),
    ("swap false", "original, predicted replaced"),
)


def render_run(title: str, step: int, rows: Sequence[Sequence[Token]]) -> str:
    """Returns a card with the rows of one run; `title` is HTML."""
    counts = examples.count_tokens(rows)
    note = (
        f"Step {step:,}. Of {counts['tokens']:,} tokens {counts['masked']:,} were masked and {counts['replaced']:,} "
        f"replaced; the discriminator detected {counts['found']:,} of those and predicted replaced for "
        f"{counts['false_alarms']:,} originals."
    )
    return render_card(title, note, rows)


def render_card(title: str, note: str, rows: Sequence[Sequence[Token]]) -> str:
    """Returns a card with rows of tokens or words, their legend and a note; `title` and `note` are HTML."""
    kept = any(token.masked for row in rows for token in row)
    legend = "".join(
        f'<span><span class="{name}">word</span> {meaning}</span>'
        for name, meaning in LEGEND
        if kept or name != "swap kept"
    )
    darkest = f'<span class="t" style="{_shade(1.0)}">word</span>'
    shade = f"<span>{darkest} darker: higher predicted probability of replacement</span>"
    body = "".join(_row(row) for row in rows)
    caption = f'<p class="note">{note}</p><div class="key">{legend}{shade}</div>'
    return f'<div class="card"><h3>{title}</h3>{caption}{body}</div>'


def _row(row: Sequence[Token]) -> str:
    tokens = "".join(_token(token) for token in row)
    guesses = [_guess(token) for token in row if token.masked and token.guesses]
    details = f"<details><summary>predictions of the generator</summary><pre>{chr(10).join(guesses)}</pre></details>"
    return f'<p class="text">{tokens}</p>{details if guesses else ""}'


def _token(token: Token) -> str:
    """Returns a token, with a space before it unless it continues a word."""
    probability = token.replaced_probability
    title = f"replaced: {probability:.0%}" if probability is not None else ""
    is_detected = probability is not None and probability > 0.5
    space = "" if token.text.startswith("##") and not token.masked else " "
    shown, before = _piece(token.text), ""
    if token.replaced:
        kind = "swap found" if is_detected else "swap missed"
        before = f"<s>{_piece(token.original)}</s>"
    elif is_detected:
        kind = "swap false"
    elif token.masked:
        kind = "swap kept"
    else:
        kind = "end" if token.text in (vocab.CLS, vocab.SEP) else "t"
    style = f' style="{_shade(probability)}"' if probability is not None else ""
    return f'{space}<span class="{kind}" title="{title}"{style}>{before}{shown}</span>'


def _guess(token: Token) -> str:
    guesses = ", ".join(f"{_text(text)} {probability:.0%}" for text, probability in token.guesses)
    return f"{_text(token.original)} → sampled {_text(token.text)}   ({guesses})"


def _shade(probability: float) -> str:
    return f"background:color-mix(in srgb,var(--warn) {probability * MAX_SHADE:.0f}%,transparent)"


def _piece(text: str) -> str:
    return _text(text.removeprefix("##"))


def _text(text: str) -> str:
    return html.escape(text)
