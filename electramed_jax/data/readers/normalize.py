"""Text as it goes into training: composed Unicode, no control characters, tidy white space."""

from __future__ import annotations

import re
import unicodedata

# C0 and C1 controls but for tab and line ends, soft hyphen, zero-width and direction marks,
# byte-order mark, lone surrogates (JSON can spell them, UTF-8 cannot).
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ud800-\udfff]"
)
_LINE_ENDS = re.compile("[\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]\\s*")
_SPACES = re.compile("[^\\S\n]{2,}|[^\\S\n ]| *\n *")


def clean(text: str) -> str:
    """Tidies a text without changing what it says.

    NFC; invisible characters are removed; line ends become "\\n" and blank lines go; other runs of
    white space become one space. Idempotent.
    """
    if _is_tidy(text):
        return unicodedata.normalize("NFC", text).strip()
    text = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
    text = _LINE_ENDS.sub("\n", text)
    text = _SPACES.sub(lambda match: "\n" if "\n" in match.group() else " ", text)
    return text.strip()


def _is_tidy(text: str) -> bool:
    """Whether none of the patterns has anything to find, which is so of most texts and quick to see."""
    # Of all white space and all that is invisible only the space is printable.
    if not text.replace("\n", "").isprintable() or "  " in text:
        return False
    return "\n" not in text or not ("\n\n" in text or " \n" in text or "\n " in text)


def reason_to_drop(text: str, min_chars: int) -> str | None:
    """Why a cleaned document is not worth training on, or None: "empty", "too_short"."""
    if not text:
        return "empty"
    return "too_short" if len(text) < min_chars else None
