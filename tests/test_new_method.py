"""``bench new-method``: what it writes works, and it says what is missing."""

import pytest

from bench import registry, scaffold
from bench.errors import BenchError


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout whose folder of methods is empty but for the template."""
    own, there = tmp_path / "bench" / "methods", scaffold._METHODS
    own.mkdir(parents=True)
    (own / "_template.py").write_text((there / "_template.py").read_text())
    (tmp_path / "pyproject.toml").write_text("")
    monkeypatch.setattr(scaffold, "_METHODS", own)
    yield tmp_path
    registry.refresh()


def test_the_scaffold_in_a_package_of_its_own_keeps_the_contract(tmp_path):
    made = scaffold.new_method("upside-down", tmp_path / "package")
    assert made.new
    assert (made.file.parent.name, made.file.name) == ("bench_upside_down", "upside_down.py")
    point = (tmp_path / "package" / "pyproject.toml").read_text()
    assert 'upside-down = "bench_upside_down.upside_down:UpsideDown"' in point
    passed, said = scaffold.check(made)
    assert passed, said
    lacking = "\n".join(scaffold.missing(made))
    assert "upside_down.py:1: FILL IN the name" in lacking
    assert "FILL IN a key of tables/references.bib" in lacking
    assert "upside-down" not in registry.names("methods")


def test_called_again_it_checks_what_is_there(tmp_path):
    made = scaffold.new_method("upside-down", tmp_path / "package")
    made.file.write_text(
        '"""Broken."""\nfrom bench.methods.base import PretextTask\n\n\nclass UpsideDown(PretextTask):\n'
        '    title, citation, version = "Broken", "nobody2026", 1\n    recipe = None\n\n'
        "    def export(self):\n        raise ValueError('no backbone')\n"
    )
    again = scaffold.new_method("upside-down", tmp_path / "package")
    assert not again.new
    assert scaffold.missing(again) == ["nobody2026 is not in tables/references.bib"]
    passed, said = scaffold.check(again)
    assert not passed
    assert "no backbone" in said


def test_in_the_checkout_it_is_one_file(checkout):
    made = scaffold.new_method("up-or-down")
    assert made.file == checkout / "bench" / "methods" / "up_or_down.py"
    assert "class UpOrDown(PretextTask)" in made.file.read_text()
    assert {path.name for path in made.file.parent.iterdir()} == {"_template.py", "up_or_down.py"}
    made.file.write_text("mine")
    assert not scaffold.new_method("up-or-down").new
    assert made.file.read_text() == "mine"


@pytest.mark.parametrize("key", ["", "Up", "up_down", "../up", "up/down", "-up", "up-", "1up", "a" * 41, "import", "é"])
def test_what_is_no_key(key, tmp_path):
    with pytest.raises(BenchError, match="is no key of a method"):
        scaffold.new_method(key, tmp_path / "package")
    assert not list(tmp_path.iterdir())


def test_what_is_taken(tmp_path, checkout):
    with pytest.raises(BenchError, match="there is a method 'rotation' already"):
        scaffold.new_method("rotation", tmp_path / "package")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    with pytest.raises(BenchError, match="the folder is not empty"):
        scaffold.new_method("upside-down", tmp_path / "full")
    (checkout / "pyproject.toml").unlink()
    with pytest.raises(BenchError, match="bench is installed, not checked out"):
        scaffold.new_method("upside-down")
