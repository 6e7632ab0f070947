"""Identifiers, languages and licences of articles in one spelling, whatever the input format."""

from __future__ import annotations

import re

_DOI = re.compile(r"10\.\d{4,9}/[^\s\"<>]+")
_PMCID = re.compile(r"(?:PMC)?\s*(\d{1,9})(?:\.\d+)?", re.IGNORECASE)
# Two-letter code -> PubMed's (ISO 639-2/B), for the languages of more than 1,000 PubMed records.
_LANGUAGES = {
    "af": "afr", "ar": "ara", "bg": "bul", "ca": "cat", "cs": "cze", "da": "dan", "de": "ger", "el": "gre", "en": "eng",
    "es": "spa", "et": "est", "eu": "baq", "fa": "per", "fi": "fin", "fr": "fre", "he": "heb", "hr": "hrv", "hu": "hun",
    "id": "ind", "is": "ice", "it": "ita", "ja": "jpn", "ko": "kor", "la": "lat", "lt": "lit", "lv": "lav", "ms": "may",
    "nl": "dut", "no": "nor", "pl": "pol", "pt": "por", "ro": "rum", "ru": "rus", "sk": "slo", "sl": "slv", "sr": "srp",
    "sv": "swe", "th": "tha", "tr": "tur", "uk": "ukr", "vi": "vie", "zh": "chi",
}  # fmt: skip
_SEPARATORS = re.compile(r"[\s-]+")
_CREATIVE_COMMONS_URL = re.compile(
    r"creativecommons\.org/(?:licen[sc]es/(by(?:-nc)?(?:-nd|-sa)?)(?:/(\d\.\d))?|publicdomain/(zero|mark)(?:/(\d\.\d))?)",
    re.IGNORECASE,
)
_CREATIVE_COMMONS_NAME = re.compile(
    r"\bCC[\s-]?(BY(?:[\s-]?NC)?(?:[\s-]?(?:ND|SA))?)(?:[\s-]?(\d\.\d))?\b|\b(CC[\s-]?0|CC-?zero)\b", re.IGNORECASE
)
_CREATIVE_COMMONS_WORDS = re.compile(
    r"Creative\s+Commons\s+(Public\s+Domain|CC0|Attribution(?:[\s-]+Non-?Commercial)?"
    r"(?:[\s-]+(?:No[\s-]?Deriv\w*|Share[\s-]?Alike))?)(?:[^.]{0,40}?\b(\d\.\d)\b)?",
    re.IGNORECASE,
)


def normalize_doi(text: str) -> str:
    """Returns the DOI in a text such as "https://doi.org/10.1186/BCR272", in lower case; "" if there is none."""
    match = _DOI.search(text)
    return match[0].rstrip(".,;)]").lower() if match else ""


def normalize_pmcid(text: str) -> str:
    """Returns "PMC13900" for "13900", "PMC13900" or "PMC13900.1"; "" for anything else."""
    match = _PMCID.fullmatch(text.strip())
    return f"PMC{int(match[1])}" if match and int(match[1]) else ""


def language_code(code: str) -> str | None:
    """Returns PubMed's code of a language, "eng" for "en", "en-US" or "eng"; None if it is unknown."""
    code = code.strip().lower().partition("-")[0].partition("_")[0]
    return code if len(code) == 3 and code.isalpha() else _LANGUAGES.get(code)


def license_name(text: str) -> str:
    """Returns the short name of the Creative Commons licence in a URL or sentence, such as "CC BY 4.0"; "" if none."""
    if match := _CREATIVE_COMMONS_URL.search(text):
        terms, version, public, public_version = match.groups()
        if public:
            return f"CC0 {public_version or ''}".strip() if public.lower() == "zero" else "public domain"
        return f"CC {terms.upper()} {version or ''}".strip()
    if match := _CREATIVE_COMMONS_NAME.search(text):
        terms, version, zero = match.groups()
        return "CC0" if zero else f"CC {'-'.join(re.split(_SEPARATORS, terms.upper()))} {version or ''}".strip()
    if match := _CREATIVE_COMMONS_WORDS.search(text):
        words, version = match[1].lower(), match[2]
        if not words.startswith("attribution"):
            return "CC0"
        terms = "BY" + "-NC" * ("commercial" in words) + "-ND" * ("deriv" in words) + "-SA" * ("alike" in words)
        return f"CC {terms} {version or ''}".strip()
    return "public domain" if re.search(r"\bpublic domain\b", text, re.IGNORECASE) else ""
