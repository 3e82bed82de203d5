"""The command line as a user meets it."""

import json
import subprocess
import sys
import time

import pytest
from smoke import bench, reproduce

TORCH_FREE = ["--help", "status", "logs", "cancel", "table"]


def _imports(*arguments):
    """The modules that a call of the command line has imported when it ends."""
    code = (
        f"import sys\nsys.argv = ['bench', *{list(map(str, arguments))!r}]\nfrom bench.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('\\n'.join(sorted(sys.modules)), file=sys.stderr)"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.split()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    reproduce(folder, methods="random,rotation")
    return folder


@pytest.mark.parametrize("verb", TORCH_FREE)
def test_torch_free_verbs(verb, runs):
    arguments = {
        "--help": ["--help"],
        "status": ["status", "--runs", runs],
        "logs": ["logs", "evaluate-rotation", "--runs", runs],
        "cancel": ["cancel", "evaluate-rotation", "--runs", runs],
        "table": ["table", "imagenet-linear", "--suite", "smoke", "--runs", runs],
    }[verb]
    modules = _imports(*arguments)
    assert "bench.cli" in modules
    assert not [m for m in modules if m.split(".")[0] in {"torch", "torchvision", "lightning_fabric"}]


def test_help_imports_nothing_heavy():
    modules = {m.split(".")[0] for m in _imports("--help")}
    assert not modules & {"torch", "numpy", "pandas", "pydantic", "jinja2", "submitit"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["reproduce", "imagenet-liner", "--suite", "smoke"], "unknown table 'imagenet-liner': did you mean"),
        (["reproduce", "imagenet-linear", "--suite", "smok"], "unknown suite 'smok': did you mean smoke"),
        (["reproduce", "imagenet-linear", "-s", "smoke", "-m", "rotatoin"], "unknown method 'rotatoin'"),
        (["reproduce", "imagenet-linear", "-s", "smoke", "--on", "lokal"], "unknown profile 'lokal'"),
        (["reproduce", "imagenet-linear", "-s", "smoke", "--seeds", "a"], "--seeds 'a' is not a list"),
        (["reproduce", "imagenet-linear", "-s", "mini", "--data", "/nowhere"], "no such data root (/nowhere)"),
        (["reproduce", "imagenet-linear", "-s", "./none.toml"], "no such suite file"),
        (["show", "protocol", "imagenet-liner"], "unknown protocol 'imagenet-liner'"),
        (["show", "methods", "rotation"], "unknown noun 'methods': did you mean method?"),
        (["run"], "name a run id"),
        (["run", "nothing"], "no run is called 'nothing'"),
        (["run", "--suite", "smoke", "--method", "rotation", "--protocol", "x"], "unknown protocol 'x'"),
        (["table", "imagenet-linear"], "Missing option"),
        (["nonsense"], "No such command"),
        (["data", "prepare", "imagnet"], "unknown data set 'imagnet'"),
        (["install", "detectron"], "detectron2"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(arguments, line, tmp_path):
    done = bench(*arguments, check=False, BENCH_RUNS=str(tmp_path))
    assert done.returncode == 2
    assert line in done.stderr
    assert done.stderr.startswith("bench: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_suite_with_an_unknown_key_is_named(tmp_path):
    suite = tmp_path / "my.toml"
    suite.write_text('title = "t"\ndescription = "d"\nbackbone = "alexnet-smoke"\nbakbone = "x"\nroles = {}\n')
    done = bench("reproduce", "imagenet-linear", "--suite", suite, check=False)
    assert done.returncode == 2
    assert "unknown key 'bakbone'" in done.stderr
    suite.write_text("title = \n")
    assert "cannot read TOML" in bench("reproduce", "imagenet-linear", "--suite", suite, check=False).stderr


def test_an_override_of_nothing_is_named(tmp_path):
    from bench.suite import _FOLDER

    suite = tmp_path / "my.toml"
    suite.write_text(
        (_FOLDER / "smoke.toml").read_text().replace("batch = 32\nepochs = 3", "batchsize = 32\nepochs = 3")
    )
    done = bench("reproduce", "imagenet-linear", "--suite", suite, "--runs", tmp_path, check=False)
    assert "overrides 'batchsize'" in done.stderr


@pytest.mark.parametrize("noun", ["methods", "protocols", "backbones", "suites", "tables", "datasets"])
def test_lists_are_objects_with_a_key(noun):
    found = json.loads(bench("list", noun, "--json").stdout)
    assert found
    assert all(thing["key"] for thing in found)


def test_third_parties_appear_in_lists_plans_and_tables_without_another_line(skeletons, runs):
    listed = {m["key"] for m in json.loads(bench("list", "methods", "--json").stdout)}
    assert set(skeletons) <= listed
    plan = json.loads(bench("plan", "imagenet-linear", "--suite", "smoke", "--runs", runs, "--json").stdout)
    assert set(skeletons) <= {run["spec"]["method"] for run in plan["runs"]}
    drawn = bench("table", "imagenet-linear", "--suite", "smoke", "--runs", runs, "--format", "markdown").stdout
    for title in ("Moving targets", "Two optimisers", "Two halves", "Outsider"):
        assert title in drawn


def test_third_parties_run_and_verify(skeletons, tmp_path):
    done = reproduce(tmp_path, methods=",".join(skeletons))
    assert "8 runs, 8 to do" in done.stdout
    levels = {v["level"] for v in json.loads(bench("verify", tmp_path, "--runs", tmp_path, "--check", "--json").stdout)}
    assert levels == {"checked"}


def test_dry_run_of_the_papers_scale_needs_no_data(tmp_path):
    done = bench(
        "reproduce", "imagenet-linear", "--suite", "alexnet", "--dry-run", "--runs", tmp_path, "--data", tmp_path
    )
    for method in ("random", "random-rescaled", "supervised", "rotation"):
        assert f"evaluate-{method}-alexnet-alexnet-s0-" in done.stdout
    assert "GPU-hours" in done.stdout
    assert "some data are not here" in done.stdout
    assert not list(tmp_path.glob("*/spec.json"))


@pytest.mark.parametrize("fmt", ["markdown", "latex", "html", "csv", "json"])
def test_tables_go_to_standard_output_or_a_file(fmt, runs, tmp_path):
    out = bench("table", "imagenet-linear", "--suite", "smoke", "--format", fmt, "--runs", runs).stdout
    file = tmp_path / "table"
    bench("table", "imagenet-linear", "--suite", "smoke", "--format", fmt, "--runs", runs, "--out", file)
    assert file.read_text().rstrip("\n") == out.rstrip("\n")
    if fmt == "json":
        json.loads(out)


def test_methods_against_the_stronger_baseline(runs, tmp_path):
    asked = ("table", "imagenet-linear", "--suite", "smoke", "--runs", runs, "--against-baseline")
    found = json.loads(bench(*asked, "--format", "json").stdout)
    assert {(one["row"], one["baseline"]) for one in found} == {("Rotation", "Random")}
    assert [one["column"] for one in found] == [*(f"conv{i}" for i in range(1, 6)), "best layer"]
    bench(*asked, "--format", "markdown", "--out", tmp_path / "lead.md")
    assert (tmp_path / "lead.md").read_text().startswith("| row ")
    assert "not drawn as csv" in bench(*asked, "--format", "csv", check=False).stderr
    assert list((runs / ".cache" / "tests").glob("*.npz"))


def test_status_logs_and_show_of_what_is_done(runs):
    rows = json.loads(bench("status", "--runs", runs, "--json").stdout)
    assert len(rows) == 4
    assert {row["state"] for row in rows} == {"DONE"}
    assert "top1" in bench("show", "run", "evaluate-rotation", "--runs", runs).stdout
    log = bench("logs", "pretrain-rotation", "--runs", runs).stdout
    assert "accuracy" in log
    assert "DONE" in log
    assert "nothing to cancel" in bench("cancel", "*rotation*", "--runs", runs).stdout


def test_show_method_and_protocol():
    shown = bench("show", "method", "rotation").stdout
    assert "ICLR" in shown
    assert '"epochs": 30' in shown
    assert "features 1200" in bench("show", "protocol", "imagenet-linear", "--suite", "mini").stdout


def test_a_detached_local_process_outlives_its_shell(tmp_path):
    out = reproduce(tmp_path, "--on", "local", methods="random").stdout
    assert "started process" in out
    assert "bench status" in out
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        rows = json.loads(bench("status", "--runs", tmp_path, "--json").stdout)
        assert {row["state"] for row in rows} <= {"QUEUED", "RUNNING", "DONE"}, rows
        if {row["state"] for row in rows} == {"DONE"}:
            break
        time.sleep(0.5)
    assert len(rows) == 2
    drawn = bench("table", "imagenet-linear", "--suite", "smoke", "--runs", tmp_path, "--format", "csv").stdout
    assert "Random" in drawn


def test_a_running_run_can_be_cancelled_and_taken_up_again(tmp_path):
    suite = tmp_path / "long.toml"
    from bench.suite import _FOLDER

    suite.write_text(
        (_FOLDER / "smoke.toml").read_text().replace("epochs = 1\nbatch = 32", "epochs = 20000\nbatch = 32")
    )
    start = ["reproduce", "imagenet-linear", "--suite", suite, "--methods", "rotation", "--runs", tmp_path / "runs"]
    bench(*start, "--on", "local")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        rows = json.loads(bench("status", "pretrain", "--runs", tmp_path / "runs", "--json").stdout)
        if rows[0]["progress"]:
            break
        time.sleep(0.3)
    assert rows[0]["state"] == "RUNNING"
    assert "min to go" in rows[0]["progress"]
    assert (
        "is being executed by process" in bench("run", rows[0]["run"], "--runs", tmp_path / "runs", check=False).stdout
    )
    bench("cancel", rows[0]["run"], "--runs", tmp_path / "runs")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        rows = {r["run"]: r for r in json.loads(bench("status", "--runs", tmp_path / "runs", "--json").stdout)}
        states = {name.split("-")[0]: row["state"] for name, row in rows.items()}
        if states["pretrain"] == "CANCELLED" and states["evaluate"] == "BLOCKED":
            break
        time.sleep(0.3)
    assert states == {"pretrain": "CANCELLED", "evaluate": "BLOCKED"}
    assert list((tmp_path / "runs").glob("pretrain-*/checkpoint.pt")), "its state is kept"


def test_failed_runs_say_why_in_status_and_table(tmp_path, skeletons):
    from PIL import Image

    root = tmp_path / "data" / "photos"
    for split, count in (("train", 8), ("val", 4)):
        for label in ("a", "b"):
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (40, 40), (i * 20, 99, 99)).save(root / split / label / f"{i}.jpg")
    (root / "train" / "a" / "3.jpg").write_bytes(b"\xff\xd8\xff\xe0 not really")
    suite = tmp_path / "photos.toml"
    suite.write_text(
        'title = "t"\ndescription = "d"\nbackbone = "alexnet-smoke"\n'
        f'[roles.pretrain]\ndataset = "{root}"\ntrain = ["train"]\n'
        f'[roles.imagenet]\ndataset = "{root}"\ntrain = ["train"]\ntest = ["val"]\n'
        "[pretrain]\nepochs = 1\nbatch = 4\n"
        "[protocols.imagenet-linear]\nepochs = 1\nsteps = []\nfeatures = 64\nheldout = 0.25\n"
    )
    arguments = ["reproduce", "imagenet-linear", "--suite", suite, "--methods", "outsider", "--runs", tmp_path / "runs"]
    done = bench(*arguments, check=False)
    assert done.returncode == 2
    assert "train/a/3.jpg" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert not list((tmp_path / "runs").glob("*/card.json"))
    rows = json.loads(bench("status", "--runs", tmp_path / "runs", "--json").stdout)
    assert {row["state"] for row in rows} == {"FAILED", "BLOCKED"}
    drawn = json.loads(bench("table", "imagenet-linear", "-s", suite, "-f", "json", "--runs", tmp_path / "runs").stdout)
    assert "3.jpg" in json.dumps(drawn)
    (root / "train" / "a" / "3.jpg").unlink()
    assert bench(*arguments).returncode == 0, "mended data make new runs"
