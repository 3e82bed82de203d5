"""A docstring as HTML: paragraphs, lists and code. Whatever else it says is text, and escaped."""

from __future__ import annotations

import re
import textwrap
from itertools import groupby

from markupsafe import Markup, escape

_INLINE = re.compile(
    r"(?::\w+:)?`{1,2}~?(?P<code>[^`\n]+)`{1,2}|(?<![\w*])\*(?P<em>[^*\s](?:[^*\n]*[^*\s])?)\*(?![\w*])"
)
_LEAD = re.compile(r"(?P<lead>[A-Z][^.:`\n]{1,60}):(?=\s|$)")
"""What a paragraph is about, at its beginning: ``Paper:``, ``Deviations from the paper:``."""


def html(text: str) -> Markup:
    """Paragraphs, ``- `` lists and indented code of a docstring; its ``code`` and *emphasis* too."""
    blocks = re.split(r"\n\s*\n", textwrap.dedent(text.expandtabs(4)).strip("\n"))
    return Markup("\n").join(made for block in blocks if block.strip() for made in _block(block))


def inline(text: str) -> Markup:
    """One run of text, with code and emphasis."""
    made, at = [], 0
    for found in _INLINE.finditer(text):
        made.append(escape(text[at : found.start()]))
        made.append(Markup("<code>{}</code>").format(found["code"]) if found["code"] else _em(found["em"]))
        at = found.end()
    return Markup("").join([*made, escape(text[at:])])


def summary(text: str) -> str:
    """The first sentence of a docstring, without the name ahead of its colon."""
    first = " ".join(text.strip().split("\n\n")[0].split())
    said = re.split(r"(?<=\.)\s", first)[0]
    _, colon, rest = said.partition(": ")
    return (rest[:1].upper() + rest[1:] if colon and rest else said).replace("`", "").rstrip(".") + "."


def _em(text: str) -> Markup:
    return Markup("<em>{}</em>").format(text)


def _block(block: str) -> list[Markup]:
    lines = block.splitlines()
    if all(line.startswith("    ") for line in lines):
        return [Markup("<pre><code>{}</code></pre>").format(textwrap.dedent(block))]
    made = []
    for item, run in groupby(_items(lines), key=lambda one: one.startswith("- ")):
        texts = list(run)
        if item:
            points = Markup("\n").join(Markup("<li>{}</li>").format(_led(one[2:])) for one in texts)
            made.append(Markup("<ul>\n{}\n</ul>").format(points))
        else:
            made += [Markup("<p>{}</p>").format(_led(one)) for one in texts]
    return made


def _items(lines: list[str]) -> list[str]:
    """Lines joined to paragraphs and list items; an item goes on in the lines that are indented under it."""
    made: list[str] = []
    for line in lines:
        starts = line.startswith("- ")
        ends_item = bool(made) and made[-1].startswith("- ") and not line.startswith(" ")
        if starts or ends_item or not made:
            made.append(line.strip())
        else:
            made[-1] += f" {line.strip()}"
    return made


def _led(text: str) -> Markup:
    found = _LEAD.match(text)
    if not found:
        return inline(text)
    return Markup("<strong>{}:</strong>{}").format(inline(found["lead"]), inline(text[found.end() :]))
