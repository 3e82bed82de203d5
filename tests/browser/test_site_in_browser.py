"""The site in a real browser, from file://: it sorts, filters, changes its theme, fits a phone, and asks nobody."""

import re
import shutil

import pytest
import stored

from bench import results
from bench import suite as suites
from bench.report.site import build

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
INSTALL = "apt-get install -y --no-install-recommends chromium fonts-dejavu-core"
MEASURED = ("random", "random-rescaled", "supervised", "rotation", "jigsaw", "split-brain", "counting", "bigan")

pytestmark = pytest.mark.skipif(not CHROMIUM, reason=f"no Chromium here: {INSTALL}")
playwright = pytest.importorskip("playwright.sync_api")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """At the demo suite eight methods are measured; at the papers' own, one; nothing is published."""
    folder = tmp_path_factory.mktemp("site")
    runs = folder / "runs"
    demo, alexnet = suites.load("demo"), suites.load("alexnet")
    for i, method in enumerate(MEASURED):
        stored.write_result(runs, stored.result(demo, method, base=40 + (7 * i) % 11))
    stored.write_result(runs, stored.result(alexnet, "rotation"))
    stored.write_pretraining(runs, demo, "rotation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "declared", lambda name: folder / name)
        build(folder / "site", runs)
    return folder / "site"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser, site):
    """A function: the page, opened in a window of its own. What it said or asked for fails the test at its end."""
    contexts, said = [], []

    def go(name, width=1280, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: None if request.url.startswith("file:") else said.append(request.url[:60]))
        page.goto((site / name).as_uri())
        return page

    yield go
    for context in contexts:
        context.close()
    assert not [one for one in said if not one.startswith("data:image/png;base64,")]


def board(page):
    return page.locator("#board-demo")


def names(page):
    return [text.replace("reference", "").strip() for text in board(page).locator("tbody th").all_inner_texts()]


def values(page, column):
    cells = board(page).locator(f"tbody tr > :nth-child({column + 1})").all_inner_texts()
    return [float(found[0]) for cell in cells if (found := re.match(r"[\d.]+", cell))]


def test_a_column_is_sorted_by_mouse_and_keyboard_and_says_so(visit):
    page = visit("index.html")
    before, head = names(page), board(page).locator("thead tr:last-child th", has_text="conv3")
    assert head.get_attribute("aria-sort") == "none"
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert values(page, 3) == sorted(values(page, 3), reverse=True)
    assert len(values(page, 3)) == len(MEASURED)
    assert sorted(names(page)) == sorted(before)
    assert "NAT" in names(page)[len(MEASURED) :]
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert values(page, 3) == sorted(values(page, 3))
    assert "NAT" in names(page)[len(MEASURED) :], "rows without a number stay at the end"
    head.get_by_role("button").press("Space")
    assert head.get_attribute("aria-sort") == "none"
    assert names(page) == before
    board(page).get_by_role("button", name="Method").click()
    assert names(page) == sorted(before, key=str.lower)


def test_rows_are_filtered_and_counted(visit):
    page = visit("index.html")
    tools = page.locator(".tools[data-table=board-demo]")
    whole = board(page).locator("tbody tr:visible").count()
    assert tools.locator("output").inner_text() == f"{whole} rows"
    tools.get_by_label("measured only").check()
    assert board(page).locator("tbody tr:visible").count() == len(MEASURED)
    tools.get_by_role("searchbox").fill("RANDOM")
    assert board(page).locator("tbody tr:visible").count() == 2
    assert tools.locator("output").inner_text() == f"2 of {whole} rows"
    tools.get_by_role("searchbox").fill("<script>")
    assert not board(page).locator("tbody tr:visible").count()
    tools.get_by_role("searchbox").fill("")
    tools.get_by_label("measured only").uncheck()
    assert board(page).locator("tbody tr:visible").count() == whole


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_follows_the_system_and_the_button(visit, scheme):
    page = visit("index.html", scheme=scheme)

    def brightness():
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    assert (brightness() > 380) == (scheme == "light")
    page.get_by_role("button", name="theme").click()
    assert (brightness() > 380) == (scheme == "dark")
    page.wait_for_timeout(300)  # Chromium stores it in another process, after the click
    page.reload()
    assert (brightness() > 380) == (scheme == "dark"), "it is remembered"


def test_a_method_is_one_click_away_and_its_figures_come_with_it(visit, site):
    page = visit("index.html")
    board(page).get_by_role("link", name="Rotation").click()
    assert page.get_by_role("heading", level=1).inner_text() == "Rotation"
    assert page.locator("#cells tbody tr").count() == 10
    assert "bench run --suite demo --method rotation" in page.content()
    figure = page.locator("figure svg").first
    assert figure.bounding_box()["width"] > 300
    assert page.locator("figure img").evaluate("image => image.complete && image.naturalWidth") == 1
    link = page.get_by_role("link", name="as PDF").first  # Chromium shows a PDF of a file:// page, and saves others
    assert (site / "methods" / link.get_attribute("href")).read_bytes().startswith(b"%PDF")


def test_published_and_measured_stand_side_by_side_at_the_papers_own_suite_only(visit):
    page = visit("tables/imagenet-linear.html")
    both = page.locator("table.both")
    assert both.count() == 1
    assert "publ." in both.locator("thead").inner_text()
    assert page.locator("#suite-demo-measured").count() == 1
    page.locator("table.both thead tr:last-child th").nth(1).get_by_role("button").click()
    assert "RotNet" in both.locator("tbody tr").first.inner_text()
    with page.expect_download() as found:
        page.get_by_role("link", name="CSV").first.click()
    assert found.value.path().read_text(encoding="utf-8").startswith("block,table,suite,row")


PAGES = ("index", "tables/imagenet-linear", "tables/voc", "methods/rotation", "protocols/voc07-classification")


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [390, 768])
def test_nothing_is_wider_than_a_phone(visit, name, width):
    page = visit(f"{name}.html", width=width)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_keyboard_skips_to_the_content(visit):
    page = visit("tables/voc.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(visit, name, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = visit(f"{name}.html", scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    found = axe.Axe().run(page).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert not serious, [(one["id"], one["help"], [node["html"][:200] for node in one["nodes"][:3]]) for one in serious]
