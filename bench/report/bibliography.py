"""The papers of ``tables/references.bib``, as a page names them. Imports neither torch nor pandas."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache

from bench.paths import declared

_ACCENTS = {"`": "\u0300", "'": "\u0301", "^": "\u0302", "~": "\u0303", '"': "\u0308", "c": "\u0327", "v": "\u030c"}
_LETTERS = {r"\o": "ø", r"\O": "Ø", r"\ss": "ß", r"\ae": "æ", r"\aa": "å", r"\l": "ł", r"\&": "&", "--": "–", "~": " "}


@dataclass(frozen=True)
class Paper:
    """One entry."""

    key: str
    authors: tuple[str, ...]
    """``Gidaris, Spyros`` turned to ``Spyros Gidaris``."""
    title: str
    venue: str
    year: str
    arxiv: str
    """The number, such as 1803.07728; empty: none."""
    bibtex: str
    """The entry as it stands in the file."""

    @property
    def names(self) -> str:
        """The authors as a text: ``A, B and C``."""
        *first, last = self.authors or ("",)
        return f"{', '.join(first)} and {last}" if first else last


@cache
def papers() -> dict[str, Paper]:
    """Every entry by its key; none where the file is not there."""
    file = declared("tables") / "references.bib"
    return parse(file.read_text(encoding="utf-8")) if file.is_file() else {}


def parse(text: str) -> dict[str, Paper]:
    """The entries of a BibTeX file that writes one field a line, ``name = {value},``, and ``}`` at the end."""
    found = {}
    for entry in re.finditer(r"^@\w+\{(?P<key>[^,\s]+),\n(?P<fields>.*?)^\}", text, re.M | re.S):
        fields = dict(re.findall(r"^\s*(\w+)\s*=\s*\{(.*)\},?$", entry["fields"], re.M))
        plain = {name.lower(): _plain(value) for name, value in fields.items()}
        venue = next((plain[name] for name in ("booktitle", "journal", "school", "howpublished") if name in plain), "")
        authors = tuple(_turned(name) for name in plain.get("author", "").split(" and ") if name)
        arxiv = plain.get("eprint", "") if plain.get("archiveprefix", "").lower() == "arxiv" else ""
        found[entry["key"]] = Paper(
            entry["key"], authors, plain.get("title", ""), venue, plain.get("year", ""), arxiv, entry[0]
        )
    return found


def _plain(value: str) -> str:
    """TeX's accents and ligatures as letters, and no braces."""
    value = re.sub(r"\{?\\([`'^~\"]|[cv](?=[\s{]))\s*\{?\\?([A-Za-z])\}?\}?", _accented, value)
    for tex, letter in _LETTERS.items():
        value = re.sub(re.escape(tex) + (r"(?![A-Za-z])\s?" if tex[1:].isalpha() else ""), letter, value)
    return " ".join(re.sub(r"[{}]", "", value).split())


def _accented(found: re.Match[str]) -> str:
    return unicodedata.normalize("NFC", found[2] + _ACCENTS[found[1]])


def _turned(name: str) -> str:
    last, comma, first = name.partition(", ")
    return f"{first} {last}" if comma else name
