import subprocess
import sys

import pytest

from bench import registry
from bench.errors import BenchError
from bench.training.recipe import SGD, MultiStep


def test_built_ins_are_found_by_file_name():
    assert {"rotation", "supervised", "random", "random-rescaled"} <= set(registry.names("methods"))
    assert "imagenet-linear" in registry.names("protocols")
    assert {"alexnet", "caffenet", "alexnet-mini"} <= set(registry.names("backbones"))


def test_facts_are_read_without_importing_the_module():
    code = (
        "import sys; from bench import registry; e = registry.entry('methods', 'rotation');"
        "loaded = [m in sys.modules for m in ('torch', 'bench.methods.rotation')];"
        "print(e.title, e.version, e.facts['recipe'].epochs, *loaded)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["Rotation", "1", "30", "False", "False"]


def test_what_ast_reads_is_what_the_class_says():
    for entry in (e for e in registry.entries("methods") if e.origin != "added"):
        cls = entry.load()
        assert entry.facts["recipe"] == cls.recipe
        assert entry.title == cls.title
        assert entry.version == cls.version
        assert entry.facts.get("needs", {"image"}) == cls.needs
        assert entry.facts.get("role", "pretext") == cls.role


def test_every_method_has_a_docstring_and_a_citation():
    for entry in (e for e in registry.entries("methods") if e.origin != "added"):
        assert len(entry.doc) > 200, entry.key
        assert entry.facts["citation"], entry.key


def test_third_parties_come_by_entry_point_and_are_not_imported(skeletons):
    for name in [name for name in sys.modules if name.startswith("bench_skeletons.")]:
        del sys.modules[name]
    assert set(skeletons) <= set(registry.names("methods"))
    assert not any(name.startswith("bench_skeletons.") for name in sys.modules)
    outsider = registry.entry("methods", "outsider")
    assert (outsider.title, outsider.version, outsider.origin) == ("Outsider", 3, "bench-skeletons")
    assert outsider.load().__name__ == "Outsider"


def test_unknown_names_get_the_nearest_ones():
    with pytest.raises(BenchError, match=r"unknown method 'rotatoin': did you mean rotation"):
        registry.entry("methods", "rotatoin")


def _plugin(tmp_path, monkeypatch, name, body, point):
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "method.py").write_text(body)
    info = tmp_path / f"{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[bench.methods]\n{point}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.refresh()


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    yield lambda *args: _plugin(tmp_path, monkeypatch, *args)
    monkeypatch.undo()
    registry.refresh()


GOOD = 'class M:\n    """Doc."""\n    title, citation, version = "M", "m2020", 1\n    recipe = None\n'


def test_a_plugin_whose_package_cannot_be_imported_is_still_listed(plugin):
    plugin("plugone", GOOD, "m = plugone.method:M")
    entry = registry.entry("methods", "m")
    assert entry.title == "M"
    with pytest.raises(RuntimeError):
        entry.load()


def test_a_name_that_is_taken_is_refused(plugin):
    plugin("plugtwo", GOOD, "rotation = plugtwo.method:M")
    with pytest.raises(BenchError, match="two methods are called 'rotation'.*plugtwo"):
        registry.names("methods")


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("class M:\n    title, citation, version = 'M', 'm', 'one'\n", "no integer version"),
        ("class M:\n    version = 1\n", "states no title"),
        ("X = 1\nclass M:\n    title, version = 'M', 1\n    recipe = X\n", "M.recipe is not a literal"),
        ("class M(:\n", "cannot be read"),
    ],
)
def test_a_broken_plugin_is_named_not_passed_over(plugin, body, what):
    plugin("plugthree", body, "m = plugthree.method:M")
    with pytest.raises(BenchError, match=what):
        registry.names("methods")


def test_an_entry_point_to_nothing_is_named(plugin):
    plugin("plugfour", GOOD, "m = not_there.method:M")
    with pytest.raises(BenchError, match="not_there"):
        registry.names("methods")


def test_recipes_read_from_source_are_built_of_the_same_words():
    optimiser = registry.entry("methods", "rotation").facts["recipe"].optimiser
    assert isinstance(optimiser, SGD)
    assert optimiser.schedule == MultiStep(at=(10 / 30, 20 / 30))
