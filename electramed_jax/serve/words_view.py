"""HTML of the words of a text with the verdicts of a discriminator and the proposals of a generator."""

from __future__ import annotations

from collections.abc import Sequence

from electramed_jax.common.page.markup import Markup, table, text
from electramed_jax.finetune.output import view
from electramed_jax.hf.format.mapping import DISCRIMINATOR, GENERATOR
from electramed_jax.serve.schemas import WordVerdict

FORM = "try"  # id of the form that a word submits
SHADES = 10
CSS = (
    "button.w{font:inherit;color:inherit;background:none;border:1px solid transparent;border-radius:4px;"
    "padding:1px 2px;cursor:pointer;text-align:inherit}button.w:hover,button.w:focus-visible{border-color:var(--ink)}"
    ".hit{text-decoration:underline 2px var(--bad);text-underline-offset:4px}"
    + "".join(
        f".r{shade}{{background:color-mix(in srgb,var(--warn) {shade * 7}%,transparent)!important}}"
        for shade in range(SHADES + 1)
    )
)


def words(passage: str, verdicts: Sequence[WordVerdict], networks: Sequence[str]) -> Markup:
    """Returns the text with a button for each word, and a table of the proposals for masked words."""
    parts, place = [], 0
    for word in verdicts:
        parts += [text(passage[place : word.start]), _button(word)]
        place = word.end
    shown = f'<div class="passage" dir="auto">{"".join(parts)}{text(passage[place:])}</div>'
    proposals = "".join(_proposals(word) for word in verdicts if word.proposals)
    hits = sum((word.replaced_probability or 0) > 0.5 for word in verdicts)
    notes = []
    if DISCRIMINATOR in networks:
        notes.append(
            f"The discriminator takes {hits:,} of {len(verdicts):,} words for replaced (underlined). "
            "Darker: a higher probability."
        )
    if GENERATOR in networks:
        notes.append("Select a word to mask it and to see what the generator proposes, or write [MASK] in the text.")
    return Markup(f"{view.note(' '.join(notes))}{shown}{proposals}")


def _button(word: WordVerdict) -> str:
    probability = word.replaced_probability
    shade, title = "", "mask this word"
    if probability is not None:
        hit = " hit" if probability > 0.5 else ""
        shade, title = f" r{round(probability * SHADES)}{hit}", f"replaced: {probability:.0%}"
    shown = f"[MASK → {text(word.proposals[0].token)}]" if word.proposals else text(word.text)
    return (
        f'<button class="w{shade}" form="{FORM}" name="mask" value="{word.start}-{word.end}" title="{title}">'
        f"{shown}</button>"
    )


def _proposals(word: WordVerdict) -> str:
    rows = [
        [
            one.token,
            Markup(f'<meter min="0" max="1" value="{one.probability:.4f}" aria-label="{text(one.token)}"></meter>'),
            f"{one.probability:.4f}",
        ]
        for one in word.proposals
    ]
    place = f"characters {word.start:,} to {word.end:,}"
    return (
        f"<h3>Proposals for “{text(word.text)}”, {place}</h3>"
        f"{table(['proposal', 'probability', ''], rows, numbers=(2,))}"
    )
