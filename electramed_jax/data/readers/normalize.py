"""Text normalization for training: composed Unicode, no control characters, single spaces."""

from __future__ import annotations

import re
import unicodedata

# C0 and C1 controls except tab and line ends, soft hyphen, zero-width and direction marks,
# byte-order mark, unpaired surrogates (JSON can represent them, UTF-8 cannot).
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ud800-\udfff]"
)
_LINE_ENDS = re.compile("[\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]\\s*")
_SPACES = re.compile("[^\\S\n]{2,}|[^\\S\n ]| *\n *")


def clean(text: str) -> str:
    r"""Returns the text in NFC, without invisible characters and blank lines; idempotent.

    Line ends become "\n", other runs of white space one space.
    """
    if _is_clean(text):
        return unicodedata.normalize("NFC", text).strip()
    text = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
    text = _LINE_ENDS.sub("\n", text)
    text = _SPACES.sub(lambda match: "\n" if "\n" in match.group() else " ", text)
    return text.strip()


def _is_clean(text: str) -> bool:
    """Returns whether no pattern can match: a fast check that most texts pass."""
    # The space is the only printable character among white space and invisible characters.
    if not text.replace("\n", "").isprintable() or "  " in text:
        return False
    return "\n" not in text or not ("\n\n" in text or " \n" in text or "\n " in text)


def drop_reason(text: str, min_chars: int) -> str | None:
    """Returns why a cleaned text is not used for training ("empty" or "too_short"), or None."""
    if not text:
        return "empty"
    return "too_short" if len(text) < min_chars else None
