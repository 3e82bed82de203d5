"""What all pages have in common: file names, style, script, and the policy that allows those and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from bench import __version__
from bench.errors import printable
from bench.files import atomic
from bench.report.plots import Figure
from bench.report.render import TEMPLATES, html_environment


@dataclass
class Files:
    """What has been written."""

    out: Path
    names: list[str] = field(default_factory=list)

    def write(self, name: str, content: str | bytes) -> None:
        """Write one file of the site."""
        with atomic(self.out / name, "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode("utf-8"))
        self.names.append(name)

    def write_figure(self, figure: Figure) -> None:
        """Write a figure for those who download it."""
        self.write(f"figures/{figure.name}.svg", figure.svg)
        self.write(f"figures/{figure.name}.pdf", figure.pdf)


def page(template: str, root: str, **words: Any) -> str:
    """One page; ``root`` leads from it to the folder of the site."""
    return _environment().get_template(f"site/{template}.jinja").render(root=root, **_house(), **words)


def slug(name: str) -> str:
    """A name that is safe in a path and a link, and still tells names apart."""
    plain = re.sub(r"[^a-z0-9._-]", "-", name).lstrip(".")[:80]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def words(value: Any) -> str:
    """A value of a definition or a recipe, for people."""
    match value:
        case dict():
            parts = [f"{key.replace('_', ' ')} {words(inner)}" for key, inner in value.items() if key != "kind"]
            return ": ".join(filter(None, [str(value.get("kind", "")), ", ".join(parts)]))
        case list() | tuple():
            return " ".join(words(one) for one in value) if value else "none"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case None:
            return "none"
    return printable(str(value))


def arxiv(number: str) -> str:
    """An arXiv number as a link may hold it; empty where it is none."""
    return number if re.fullmatch(r"([a-z-]+/)?[0-9.]+(v[0-9]+)?", number) else ""


@cache
def _environment() -> Environment:
    made = html_environment().overlay()
    made.filters = {**made.filters, "slug": slug, "arxiv": arxiv}
    return made


@cache
def _house() -> dict[str, Any]:
    css = "\n" + "".join((TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "site/site.css"))
    js = "\n" + (TEMPLATES / "site" / "site.js").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; img-src data:; script-src {_hash(js)}; style-src-elem {_hash(css)}; "
        "style-src-attr 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    )
    return {"css": Markup(css), "js": Markup(js), "policy": policy, "version": __version__}


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
