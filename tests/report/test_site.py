"""The site from an empty store, from measured numbers, and from hostile ones."""

import itertools
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
import stored

from bench import published, registry
from bench import suite as suites
from bench.errors import BenchError
from bench.report import bibliography, plots, prose, spec
from bench.report.render import TEMPLATES
from bench.report.site import MANIFEST, build, pretraining
from bench.report.site.frame import slug

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, file):
        super().__init__()
        self.tags, self.words = [], []
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A site of seven methods at the demo suite, one of them with three seeds."""
    folder = tmp_path_factory.mktemp("demo")
    runs, out = folder / "runs", folder / "site"
    suite = suites.load("demo")
    for i, method in enumerate(
        ("random", "supervised", "rotation", "jigsaw", "split-brain", "counting", "nat", "bigan", "colorization")
    ):
        stored.write_result(runs, stored.result(suite, method, base=40 + i))
    for seed in (1, 2):
        stored.write_result(runs, stored.result(suite, "rotation", seed, base=41 + seed))
    stored.write_pretraining(runs, suite, "rotation")
    stored.write_pretraining(runs, suite, "jigsaw", shows="imagenet")
    build(out, runs)
    return out


def pages(out):
    return sorted(out.rglob("*.html"))


def test_without_any_result_every_page_is_there_and_torch_is_not_imported(tmp_path):
    code = """
import pathlib, sys
from bench import cli, results
results.declared = lambda name: pathlib.Path(sys.argv[-1])  # nothing is published
try:
    cli.main()
except SystemExit as done:
    sys.exit(done.code or "torch" in sys.modules)
"""
    out = tmp_path / "site"
    command = [sys.executable, "-c", code, "site", "--out", str(out), "--runs", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert not done.returncode, done.stderr
    assert str(out / "index.html") in done.stdout
    for kind, keys in (
        ("tables", spec.names()),
        ("methods", registry.names("methods")),
        ("protocols", registry.names("protocols")),
    ):
        assert {file.stem for file in (out / kind).glob("*.html")} == set(keys)
    assert "bench reproduce imagenet-linear --suite demo" in Page(out / "index.html").text
    assert "not run" in Page(out / "tables" / "imagenet-linear.html").text


def test_the_same_results_give_the_same_bytes_and_nothing_of_a_former_site_stays(demo, tmp_path):
    out, outside = tmp_path / "site", tmp_path / "outside.txt"
    (out / "methods").mkdir(parents=True)
    for file in (out / "methods" / "gone.html", out / "mine.txt", outside):
        file.write_text("old")
    files = ["methods/gone.html", "../outside.txt", str(outside)]
    (out / MANIFEST).write_text(json.dumps({"schema": 1, "files": files}))
    plots.across.cache_clear()
    names = build(out, demo.parent / "runs")
    assert all((out / name).read_bytes() == (demo / name).read_bytes() for name in [*names, MANIFEST])
    assert not (out / "methods" / "gone.html").exists()
    assert (out / "mine.txt").exists()
    assert outside.exists()


def test_published_numbers_of_a_method_carry_their_marks(demo):
    text = Page(demo / "methods" / "rotation.html").text
    assert "conv1 18.8§, conv2 31.7?, conv3 38.7§" in text
    assert "? unverified; the page of the table says where" in text
    assert "17.7, conv2 24.5, conv3 31.0" in Page(demo / "methods" / "bigan.html").text


def test_a_table_without_a_protocol_says_so(demo):
    assert "not measured: protocol cifar10-classifier does not exist yet" in Page(demo / "tables" / "cifar10.html").text


def test_links_lead_to_files_and_places_of_the_site(demo):
    for file in pages(demo):
        page = Page(file)
        for link in page.all("a"):
            href = link["href"]
            if href.startswith("https://arxiv.org/abs/"):
                continue
            name, _, place = href.partition("#")
            target = (file.parent / name).resolve() if name else file
            assert target.is_file(), f"{file.name}: {href}"
            assert target.is_relative_to(demo.resolve())
            if place:
                assert place in {tag.get("id") for _, tag in Page(target).tags}, f"{file.name}: {href}"


def test_pages_stand_alone(demo):
    for file in pages(demo):
        page = Page(file)
        assert not page.all("link")
        assert all("src" not in script for script in page.all("script"))
        assert all(image["src"].startswith("data:image/png;base64,") for image in page.all("img"))
        assert len(page.all("script")) == len(page.all("style")) == 1
        ids = [tag["id"] for _, tag in page.tags if "id" in tag]
        assert len(set(ids)) == len(ids), file.name
        assert len(page.all("h1")) == 1
        assert all("scope" in th for th in page.all("th"))
        assert len(page.all("caption")) == len(page.all("table"))
        assert all(svg.get("aria-label") for svg in page.all("svg"))


def test_a_method_page_tells_all_of_its_numbers(demo):
    page = Page(demo / "methods" / "rotation.html")
    for told in (
        "Predict by which multiple of 90 degrees".lower(),
        "Spyros Gidaris, Praveer Singh and Nikos Komodakis",
        "top1@conv3",
        "0: 48.00, 1: 48.00, 2: 49.00",
        "bench run --suite demo --method rotation --protocol imagenet-linear --seed 0",
        "epochs",
        "suite demo",
    ):
        assert told in page.text or told in page.text.lower(), told
    digest = stored.result(suites.load("demo"), "rotation")["protocol"]["digest"]
    assert digest in page.text
    assert "The pretext metric" in page.text
    assert "0.812" in page.text
    assert len(page.all("img")) == 1
    assert (demo / "figures" / "rotation.demo.training-0.svg").is_file()


def test_what_is_published_of_a_pretraining_is_shown_once(tmp_path, monkeypatch):
    made = stored.write_pretraining(tmp_path / "runs", suites.load("smoke"), "rotation")
    folder = tmp_path / "results" / "smoke" / "pretraining" / "alexnet-smoke.rotation"
    folder.mkdir(parents=True)
    (folder / "card-s0.json").write_bytes((made / "card.json").read_bytes())
    (folder / "samples-s0.png").write_bytes(stored.png())
    monkeypatch.setattr(published, "root", lambda: tmp_path / "results")
    for runs in ("runs", "none"):
        (one,) = pretraining.load(tmp_path / runs)["rotation"]
        assert pretraining.picture([one])
        assert one.card.seed == 0


def test_every_loss_of_a_pretraining_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "root", lambda: tmp_path / "none")
    curve = [{"epoch": i, "loss_generator": 1.0 + i, "loss_discriminator": 1.0 - i} for i in range(3)]
    training, pretext = {"images": 300, "curve": curve}, {"metric": "explained", "value": -0.5, "chance": 0.0, "n": 10}
    stored.write_pretraining(tmp_path, suites.load("smoke"), "bigan", training=training, pretext=pretext)
    done = pretraining.load(tmp_path)["bigan"]
    (figure,) = pretraining.curves(registry.entry("methods", "bigan"), done)
    assert [name in figure.svg for name in ("loss_generator", "loss_discriminator", "explained")] == [True, True, False]
    (card,) = pretraining.metrics(done)
    assert (card.seed, card.pretext.metric, card.pretext.value) == (0, "explained", -0.5)


def test_labels_of_near_points_do_not_overlap():
    points = [plots.Point(f"a name of some length {i}", "all", 4 + i % 2, 4 + i // 2 / 4) for i in range(4)]
    far = [plots.Point("far", "all", 1.0, 8.0), plots.Point("away", "all", 8.0, 1.0)]
    figure = plots.against("points", "Ranks", "", ("x", "y"), (*points, *far), ranks=True)
    found = re.findall(r'text-anchor: (\w+);[^"]*" x="([\d.]+)" y="([\d.]+)"[^>]*>a name', figure.svg)
    wide = 80.0  # a little less than such a label, in points
    boxes = [(float(x) - wide * (anchor == "end"), float(y)) for anchor, x, y in found]
    assert len(boxes) == 4
    for (x, y), (other_x, other_y) in itertools.combinations(boxes, 2):
        assert abs(x - other_x) > wide or abs(y - other_y) > 7.5


def test_photographs_of_a_data_set_are_never_published(demo):
    assert not Page(demo / "methods" / "jigsaw.html").all("img")


def test_numbers_of_another_suite_never_stand_beside_the_papers(demo):
    page = Page(demo / "tables" / "imagenet-linear.html")
    assert "not comparable with published numbers" in page.text
    assert (demo / "figures" / "imagenet-linear.demo.ranks.svg").is_file()
    assert not (demo / "figures" / "imagenet-linear.demo.against.svg").exists()
    assert not [table for table in page.all("table") if "both" in table.get("class", "")]


def test_at_the_papers_own_suite_values_stand_against_values(tmp_path):
    for method in ("random", "rotation"):
        stored.write_result(tmp_path / "runs", stored.result(suites.load("alexnet"), method))
    build(tmp_path / "site", tmp_path / "runs")
    page = Page(tmp_path / "site" / "tables" / "imagenet-linear.html")
    assert [table for table in page.all("table") if "both" in table.get("class", "")]
    figure = (tmp_path / "site" / "figures" / "imagenet-linear.alexnet.against.svg").read_text()
    assert "Published against measured" in figure


def test_figures_are_svg_and_pdf_of_one_drawing(demo):
    for svg in (demo / "figures").glob("*.svg"):
        assert svg.read_text(encoding="utf-8").startswith("<?xml")
        assert svg.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    assert (demo / "figures" / "imagenet-linear.demo.measured-0.svg").is_file()


def test_downloads_are_the_tables_of_the_command_line(demo):
    text = (demo / "tables" / "imagenet-linear.demo.csv").read_text(encoding="utf-8")
    assert "rotation" in text
    assert r"\toprule" in (demo / "tables" / "imagenet-linear.demo.tex").read_text(encoding="utf-8")


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(BenchError, match="no folder of a site"):
        build(tmp_path, tmp_path / "runs")
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_hostile_results_are_inert(tmp_path):
    runs, suite = tmp_path / "runs", suites.load("smoke")
    stored.write_result(runs, stored.result(suite, "rotation"))
    stored.write_result(runs, stored.result(suite, "rotation", 1, method=f"../../{EVIL}"))
    stored.write_result(runs, stored.result(suite, "jigsaw", suite=f"../../{EVIL}"))
    stored.write_result(runs, stored.result(suite, "random", options={EVIL: "$x_{$"}))
    stored.write_pretraining(runs, suite, "rotation", pretext={"metric": EVIL, "chance": None}, suite=EVIL)
    stored.write_pretraining(runs, suite, "jigsaw", training={"curve": [{"epoch": "x", "loss": [1]}]})
    (stored.write_pretraining(runs, suite, "counting") / "card.json").write_text("{")
    out = tmp_path / "deep" / "er" / "site"
    with pytest.warns(UserWarning, match="pretrain-counting.*left out|left out.*pretrain-counting"):
        names = build(out, runs)
    assert all(re.fullmatch(r"[a-z]+(/[a-z0-9][A-Za-z0-9._-]*)?\.?[a-z]*", name) for name in names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "runs"]
    for file in pages(out):
        page = Page(file)
        assert len(page.all("script")) == 1, file
        assert not [tag for _, tag in page.tags if any(name.startswith("on") for name in tag)], file
        assert all("alert" not in image["src"] for image in page.all("img"))
    assert "alert(1)" in Page(out / "index.html").text
    for file in (out / "figures").glob("*.svg"):
        assert "<script" not in file.read_text(encoding="utf-8")


def test_hostile_methods_are_inert(evil, tmp_path):
    evil(f'{EVIL}\x1b[31m" $ \\')
    out = tmp_path / "site"
    build(out, tmp_path / "runs")
    for file in pages(out):
        assert len(Page(file).all("script")) == 1, file
    assert "alert(1)" in Page(out / "methods" / "evil.html").text


@pytest.mark.parametrize("name", ["imagenet-linear", "resnet50.v1_b"])
def test_plain_names_are_their_own_slugs(name):
    assert slug(name) == name


@pytest.mark.parametrize("name", ["../x", "A", "a/b", "..", "", "ä", "a b", "x" * 300, "\0"])
def test_slugs_are_safe_and_tell_names_apart(name):
    made = slug(name)
    assert re.fullmatch(r"[a-z0-9_-][a-z0-9._-]*", made) or made == ""
    assert len(made) < 100
    assert made != slug(name + "/") or not name


def test_every_colour_of_a_figure_has_one_for_dark_pages():
    css = "".join((TEMPLATES / name).read_text() for name in ("style.css", "site/site.css"))
    for name, colour in plots.INK.items():
        assert f"--{name}: light-dark({colour}," in css


def test_figures_take_any_label_as_text():
    curve = plots.Curve("$\\frac{ <b>&", (0.0, 1.0), (1.0, 2.0))
    drawn = plots.across("x", "$", "<i>", ("_a", "$b"), "%", (curve,))
    assert "$\\frac{ &lt;b&gt;&amp;" in drawn.svg
    assert "<i>" not in drawn.inline
    plots.across.cache_clear()
    assert drawn == plots.across("x", "$", "<i>", ("_a", "$b"), "%", (curve,))


def test_prose_is_paragraphs_lists_and_code():
    made = prose.html("Rotation: turn it.\n\nOptions:\n- ``n``, of *four*\n  or two\n- <b>\n\n    x < 1\n\n3 * 4 * 5")
    assert made == (
        "<p><strong>Rotation:</strong> turn it.</p>\n<p><strong>Options:</strong></p>\n"
        "<ul>\n<li><code>n</code>, of <em>four</em> or two</li>\n<li>&lt;b&gt;</li>\n</ul>\n"
        "<pre><code>x &lt; 1</code></pre>\n<p>3 * 4 * 5</p>"
    )
    assert prose.summary("Rotation: turn it. Then say how.") == "Turn it."


def test_bibliography_reads_accents_and_names():
    (paper,) = bibliography.parse(
        '@article{k,\n  author = {Kr{\\"a}henb{\\"u}hl, P. and S{\\o}rensen, \\\'A. and {The Team}},\n'
        "  title = {{PASCAL} and {\\~a} more},\n  year = {2016},\n  eprint = {1511.06856},\n"
        "  archiveprefix = {arXiv},\n}\n"
    ).values()
    assert paper.names == "P. Krähenbühl, Á. Sørensen and The Team"
    assert (paper.title, paper.year, paper.arxiv) == ("PASCAL and ã more", "2016", "1511.06856")


def test_every_reference_of_a_method_is_in_the_bibliography():
    papers = bibliography.papers()
    for entry in registry.entries("methods"):
        assert entry.facts["citation"] in papers, entry.key
    assert all(paper.title and paper.authors and "\\" not in paper.names + paper.title for paper in papers.values())
