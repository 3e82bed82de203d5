"""The documents promise only what is there: commands that parse, links and files that exist."""

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from bench.cli import app
from bench.results import Result

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")], key=str)
LANGUAGE = r"```{}\n(.*?)```"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(LANGUAGE.format(language), page.read_text(encoding="utf-8"), flags=re.DOTALL)


def commands(page: Path, program: str) -> list[list[str]]:
    """The arguments of every line of a shell block, and of every inline piece of code, that calls ``program``."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", re.sub(LANGUAGE.format(r"\w*"), "", text, flags=re.DOTALL))
    split = (shlex.split(line, comments=True) for line in lines if line.startswith(f"{program} "))
    return [words[1:] for words in split]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_parse(page: Path) -> None:
    for words in commands(page, "bench"):
        command, rest = get_command(app), words
        while hasattr(command, "commands") and not rest[0].startswith("-"):
            assert rest[0] in command.commands, f"{page.name}: bench {' '.join(words)}"
            command, rest = command.commands[rest[0]], rest[1:]
            if not rest:
                break
        known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
        options = [word.partition("=")[0] for word in rest if word.startswith("-")]
        assert set(options) <= known, f"{page.name}: bench {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for words in commands(page, "make"):
        assert re.search(rf"^{re.escape(words[0])}:", makefile, flags=re.MULTILINE), f"{page.name}: make {words[0]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, f"{page.name}: {target}"
        elif not target.startswith("https://"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_example_of_a_result_is_one() -> None:
    (example,) = blocks(ROOT / "docs" / "formats.md", "json")
    Result.model_validate(json.loads(example))


def test_the_results_in_the_documents_are_those_that_are_committed() -> None:
    report = runpy.run_path(str(ROOT / "docs" / "reproduction" / "report.py"))
    for document in report["DOCUMENTS"]:
        text = document.read_text(encoding="utf-8")
        assert report["filled"](text) == text, f"{document.name}: run docs/reproduction/report.py"
