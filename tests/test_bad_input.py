"""What goes wrong at 2 a.m., through the command line: one clear line, exit status 2, nothing half-written."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from warnings import catch_warnings

import numpy as np
import pytest
from PIL import Image

from bench import cli

TABLE = ("table", "imagenet-linear", "--suite", "smoke")


def bench(*arguments, check=True):
    """``bench ...`` in this process, which has imported torch already."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err), catch_warnings():
        patch.setattr(sys, "argv", ["bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    done = subprocess.CompletedProcess(arguments, ended.value.code or 0, out.getvalue(), err.getvalue())
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def reproduce(runs, *more, methods, **how):
    """``bench reproduce imagenet-linear --suite smoke``, in this process too."""
    words = ("reproduce", "imagenet-linear", "--suite", "smoke", "--runs", runs, "--methods", methods, "--workers", 0)
    return bench(*words, *more, **how)


def refused(*arguments):
    """The one line on standard error of a command that must be refused."""
    done = bench(*arguments, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr.startswith("bench: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def failed(*arguments):
    """What a command prints of a run that failed: a line for the run, one for the command."""
    done = bench(*arguments, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert re.search(r"^bench: .*failed", done.stderr, re.MULTILINE), done.stderr
    return "\n".join(line for line in done.stdout.splitlines() if " failed: " in line)


def half_written(runs):
    """What may not be there after a failure: temporary files, and a last file without the one before it."""
    found = [p for p in runs.rglob("*.tmp") if ".cache" not in p.parts]
    found += [p for p in runs.glob("*/result.json") if not (p.parent / "evidence.npz").is_file()]
    return found + [p for p in runs.glob("*/card.json") if not (p.parent / "backbone.safetensors").is_file()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The runs of ``random`` and ``rotation`` at smoke; not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    reproduce(folder, methods="random,rotation")
    return folder


@pytest.fixture
def runs(finished, tmp_path):
    """A copy of them."""
    return shutil.copytree(finished, tmp_path / "runs")


def of(runs, kind, method="rotation"):
    return next(runs.glob(f"{kind}-{method}-*"))


@pytest.fixture
def photos(tmp_path):
    """A data root with two classes of small photographs, and a suite over it; a function that writes the suite."""
    root = tmp_path / "data" / "photos"
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        for label in ("a", "b"):
            (root / split / label).mkdir(parents=True)
            for i in range(count):
                noise = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(noise).save(root / split / label / f"{i}.jpg")

    def suite(options="{}"):
        file = tmp_path / "photos.toml"
        file.write_text(
            'title = "t"\ndescription = "d"\nbackbone = "alexnet-smoke"\n'
            f'[roles.pretrain]\ndataset = "{root}"\ntrain = ["train"]\noptions = {options}\n'
            f'[roles.imagenet]\ndataset = "{root}"\ntrain = ["train"]\ntest = ["val"]\noptions = {options}\n'
            "[pretrain]\nepochs = 1\nbatch = 4\n"
            "[protocols.imagenet-linear]\nepochs = 1\nsteps = []\nfeatures = 64\nheldout = 0.25\nbatch = 4\n"
        )
        return ["reproduce", "imagenet-linear", "-s", file, "-m", "rotation", "--runs", tmp_path / "runs"]

    return root, suite


# data


def test_a_missing_data_root_is_named(tmp_path):
    line = refused("reproduce", "imagenet-linear", "-s", "mini", "--data", tmp_path / "none", "--runs", tmp_path)
    assert f"no such data root ({tmp_path / 'none'})" in line
    assert "--data" in line


def test_a_data_root_without_the_data_set_says_how_to_get_it(tmp_path):
    line = refused("reproduce", "imagenet-linear", "-s", "mini", "--data", tmp_path, "--runs", tmp_path / "runs")
    assert "the data root has no tiny-imagenet-50" in line
    assert "bench data prepare tiny-imagenet-50" in line
    (tmp_path / "tiny-imagenet-50" / "train").mkdir(parents=True)
    line = refused("reproduce", "imagenet-linear", "-s", "mini", "--data", tmp_path, "--runs", tmp_path / "runs")
    assert "tiny-imagenet-50" in line
    assert not list((tmp_path / "runs").glob("*/spec.json"))


def test_an_empty_class_folder_is_named(photos):
    root, suite = photos
    (root / "train" / "c").mkdir()
    assert f"class folder 'c' has no images ({root / 'train' / 'c'})" in refused(*suite())


def test_a_file_in_place_of_the_data_root(tmp_path):
    (tmp_path / "file").write_text("x")
    assert "no such data root" in refused("reproduce", "imagenet-linear", "-s", "mini", "--data", tmp_path / "file")


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty"])
def test_a_corrupt_jpeg_is_refused_by_name(photos, damage, tmp_path):
    root, suite = photos
    file = root / "train" / "a" / "3.jpg"
    whole = file.read_bytes()
    file.write_bytes({"truncated": whole[: len(whole) // 2], "garbage": b"\xff\xd8 no", "empty": b""}[damage])
    line = failed(*suite(), "--workers", 1)
    assert "corrupt image" in line
    assert str(file) in line
    assert "skip_corrupt = true" in line
    assert not half_written(tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*/card.json"))


def test_corrupt_jpegs_are_skipped_on_request_counted_and_named(photos):
    root, suite = photos
    for name in ("a/3.jpg", "b/0.jpg"):
        (root / "train" / name).write_bytes(b"\xff\xd8 no")
    done = bench(*suite("{ skip_corrupt = true }"), "--workers", 0)
    assert "2 of 16 images are corrupt and left out: train/a/3.jpg" in done.stderr
    assert "train/b/0.jpg" in done.stderr
    again = bench(*suite("{ skip_corrupt = true }"), "--workers", 0)
    assert "2 runs, 0 to do" in again.stdout
    assert "2 of 16 images are corrupt" in again.stderr, "never silently, also when nothing is left to do"


# names and files of settings


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["reproduce", "imagenet-linea", "-s", "smoke"],
            "unknown table 'imagenet-linea': did you mean imagenet-linear or imagenet-nonlinear",
        ),
        (["table", "imagenet-linea", "-s", "smoke"], "did you mean imagenet-linear or imagenet-nonlinear"),
        (["plan", "imagenet-linear", "-s", "smok"], "unknown suite 'smok': did you mean smoke"),
        (["reproduce", "imagenet-linear", "-s", "smoke", "-m", "rotaton"], "did you mean rotation"),
        (["run", "-s", "smoke", "--method", "rotaton"], "unknown method 'rotaton': did you mean rotation"),
        (["run", "-s", "smoke", "--method", "random", "--protocol", "imagenet-linar"], "did you mean imagenet-linear?"),
        (["run", "-s", "smoke", "--method", "rotation", "--options", "[1"], "--options is not JSON"),
        (["reproduce", "imagenet-linear", "-s", "smoke", "--workers", "-1"], "--workers"),
        (["verify", "/nowhere"], "no result here (/nowhere)"),
        (["logs", "x"], "no run is called 'x'"),
    ],
)
def test_a_wrong_word_is_one_line(arguments, line, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_RUNS", str(tmp_path))
    assert line in refused(*arguments)
    assert not list(tmp_path.rglob("spec.json"))


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("[pretrain]", "[pretrain]\nepoch = 3", "unknown key 'pretrain.epoch'"),
        ("[pretrain]\nepochs = 1", '[pretrain]\nepochs = "1"', "pretrain.epochs: Input should be a valid integer"),
        ('test = ["val"]', 'tset = ["val"]', "unknown key 'roles.imagenet.tset'"),
        ("backbone =", "backbone", "cannot read TOML"),
        ("[protocols.imagenet-linear]", "[protocols.imagenet-linear]\nfeeatures = 3", "feeatures"),
        ('backbone = "alexnet-smoke"', 'backbone = "alexnet-smok"', "unknown backbone 'alexnet-smok': did you mean"),
    ],
)
def test_a_mistake_in_a_suite_file_is_named(old, new, line, tmp_path):
    from bench.suite import _FOLDER

    whole = (_FOLDER / "smoke.toml").read_text()
    assert old in whole
    file = tmp_path / "mine.toml"
    file.write_text(whole.replace(old, new))
    assert line in refused("reproduce", "imagenet-linear", "-s", file, "-m", "random", "--runs", tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("*/spec.json"))


def test_a_suite_file_may_not_take_a_built_in_name(tmp_path):
    from bench.suite import _FOLDER

    shutil.copy(_FOLDER / "smoke.toml", tmp_path)
    line = refused("plan", "imagenet-linear", "-s", tmp_path / "smoke.toml", "--runs", tmp_path)
    assert "there is a built-in suite 'smoke'" in line


def test_an_unknown_option_of_a_method_is_named(tmp_path):
    cell = ("run", "-s", "smoke", "--method", "rotation", "--options", '{"rotation": 2}', "--runs", tmp_path)
    assert "unknown option of rotation 'rotation': did you mean rotations?" in failed(*cell)


# damaged files of runs


@pytest.mark.parametrize("damage", ["torn", "foreign key", "list", "empty"])
def test_a_damaged_spec_is_refused_and_the_rest_goes_on(runs, damage):
    spec = of(runs, "pretrain") / "spec.json"
    whole = spec.read_text()
    changed = json.dumps(json.loads(whole) | {"colour": "red"})
    spec.write_text({"torn": whole[:100], "foreign key": changed, "list": "[1]", "empty": ""}[damage])
    (spec.parent / "card.json").unlink()
    done = bench("run", spec.parent.name, "--runs", runs, "--workers", 0, check=False)
    assert done.returncode == 2
    warning, error = done.stderr.splitlines()
    assert warning.startswith("bench: warning: not a run, left out: ")
    assert str(spec.parent) in warning
    assert error.startswith(f"bench: no run is called '{spec.parent.name}'")
    status = bench("status", "--runs", runs, "--json")
    assert len(json.loads(status.stdout)) == 3
    assert "warning: not a run, left out" in status.stderr
    assert "not a run, left out" in bench(*TABLE, "--runs", runs, "--format", "csv").stderr


def test_garbage_in_the_runs_folder_harms_nothing(runs):
    before = bench(*TABLE, "--runs", runs, "--format", "csv").stdout
    for name, text in (("notes", '{"a": 1}'), ("pretrain-x", "[]"), ("evaluate-y", "{"), (".hidden", "{}")):
        (runs / name).mkdir()
        (runs / name / "spec.json").write_text(text)
    (runs / "evaluate-z").mkdir()
    (runs / "a file").write_text("x")
    (runs / "evaluate-file").write_text("x")
    run = of(runs, "evaluate")
    (run / "attempt-x.json").write_text("?")
    (run / "attempt-9.json").write_text('{"torn')
    (run / "log.jsonl").write_text('{"torn')
    assert bench(*TABLE, "--runs", runs, "--format", "csv").stdout == before
    rows = json.loads(bench("status", "--runs", runs, "--json").stdout)
    assert [row["state"] for row in rows] == ["DONE"] * 4
    assert "4 runs, 0 to do" in reproduce(runs, methods="random,rotation").stdout
    bench("logs", run.name, "--runs", runs)
    assert len(json.loads(bench("verify", "--runs", runs, runs, "--json").stdout)) == 2


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A pretraining that was killed after its first checkpoint."""
    folder = tmp_path_factory.mktemp("interrupted")
    words = ["reproduce", "imagenet-linear", "--suite", "demo", "-m", "rotation", "--workers", "0", "--runs", folder]
    command = [sys.executable, "-m", "bench.cli", *map(str, words), "--checkpoint-every", "0"]
    job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(folder.glob("*/checkpoint.pt")):
        time.sleep(0.1)
    job.send_signal(signal.SIGKILL)
    job.wait()
    return folder


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "another file"])
def test_an_unreadable_checkpoint_is_named(interrupted, damage, tmp_path):
    runs = shutil.copytree(interrupted, tmp_path / "runs")
    file = of(runs, "pretrain") / "checkpoint.pt"
    whole = file.read_bytes()
    bad = {"truncated": whole[: len(whole) // 2], "empty": b"", "garbage": b"\x80\x02}q\x00.", "another file": b"PK"}
    file.write_bytes(bad[damage])
    line = failed("run", file.parent.name, "--runs", runs, "--workers", 0)
    assert "checkpoint cannot be read" in line
    assert str(file) in line
    assert "delete it" in line
    assert not half_written(runs)
    assert file.read_bytes() == bad[damage], "it is the user's to delete"


def test_what_a_killed_writer_left_is_removed(interrupted, tmp_path):
    runs = shutil.copytree(interrupted, tmp_path / "runs")
    run = of(runs, "pretrain")
    (run / ".checkpoint.pt.abcd.tmp").write_bytes(b"x" * 1000)
    (run / "checkpoint.pt").write_bytes(b"")
    failed("run", run.name, "--runs", runs, "--workers", 0)
    assert not half_written(runs)


def test_a_damaged_backbone_is_never_measured(runs):
    file = of(runs, "pretrain") / "backbone.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    run = of(runs, "evaluate")
    (run / "result.json").unlink()
    line = failed("run", run.name, "--runs", runs, "--workers", 0)
    assert "damaged or replaced" in line
    assert str(file) in line
    assert not (run / "result.json").exists()
    assert not half_written(runs)


# verify


def forged(runs, change):
    """The problem that verify finds after ``change(result)``."""
    file = of(runs, "evaluate") / "result.json"
    result = json.loads(file.read_text())
    change(result)
    file.write_text(json.dumps(result))
    done = bench("verify", file, "--runs", runs, "--json", check=False)
    assert done.returncode == 1
    (verdict,) = json.loads(done.stdout)
    assert verdict["level"] in ("refuted", "unproven")
    return verdict["problem"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda r: r["columns"]["top1@conv3"].update(value=99.0), "top1@conv3.value is 99.0"),
        (lambda r: r["columns"]["top1@conv3"].update(low=0.0, high=100.0), "top1@conv3.low is 0.0"),
        (lambda r: r["columns"]["top1@conv3"].update(value=str(r["columns"]["top1@conv3"]["value"])), "valid number"),
        (lambda r: r["columns"]["top1@conv3"].update(value=float("nan")), "should be a finite number"),
        (lambda r: r["columns"].pop("top1@conv3"), "top1@conv3 is missing"),
        (lambda r: r["columns"].update({"top1@conv9": r["columns"]["top1@conv3"]}), "top1@conv9 has no evidence"),
        (lambda r: r["protocol"].update(digest="0" * 16), "protocol is not that of the run's spec"),
        (lambda r: r.update(method="supervised"), "method is not that of the run's spec"),
        (lambda r: r.update(seed=1), "seed is not that of the run's spec"),
        (lambda r: r.update(weights_sha256="0" * 64), "weights_sha256 is not that of"),
        (lambda r: r["data"]["test"].update(digest="0" * 16), "data are not those of the run's spec"),
        (lambda r: r["evidence"].update(file="../../etc/passwd"), "is not a .npz file beside the result"),
        (lambda r: r.update(colour="red"), "unknown key 'colour'"),
    ],
)
def test_verify_refuses_an_edited_result(finished, tmp_path, change, problem):
    runs = tmp_path / "runs"
    for kind in ("evaluate", "pretrain"):
        shutil.copytree(of(finished, kind), runs / of(finished, kind).name)
    assert problem in forged(runs, change)


def test_verify_refuses_edited_and_swapped_evidence(runs):
    own, other = of(runs, "evaluate"), of(runs, "evaluate", "random")
    shutil.copy(other / "evidence.npz", own / "evidence.npz")
    assert "its sha256 differs" in forged(runs, lambda result: None)
    with np.load(own / "evidence.npz") as arrays:
        edited = {name: arrays[name] for name in arrays.files}
    edited["rank"][0] = 0
    np.savez_compressed(own / "evidence.npz", **edited)
    assert "its sha256 differs" in forged(runs, lambda result: None)
    from bench.results import sha256

    named = {"file": "evidence.npz", "sha256": sha256(own / "evidence.npz")}
    assert "top1@conv1.value" in forged(runs, lambda result: result.update(evidence=named))
    (own / "evidence.npz").write_bytes(b"PK no")
    named = named | {"sha256": sha256(own / "evidence.npz")}
    assert "the evidence cannot be read" in forged(runs, lambda result: result.update(evidence=named))


# disks


def test_a_runs_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    done = bench(
        "reproduce", "imagenet-linear", "-s", "smoke", "-m", "random", "--runs", tmp_path / "file", check=False
    )
    assert done.returncode == 2
    assert "cannot write: Not a directory" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture
def disk(tmp_path):
    """A function that mounts a small or a read-only file system; needs root."""
    mounted = []

    def mount(options):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if os.geteuid() or not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("only root may mount a file system to fill")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_read_only_runs_folder(disk):
    line = bench(
        "reproduce", "imagenet-linear", "-s", "smoke", "-m", "random", "--runs", disk("ro"), check=False
    ).stderr
    assert "cannot write: Read-only file system" in line
    assert "choose a folder you may write to" in line
    assert line.count("\n") == 1


@pytest.mark.parametrize("kilobytes", [24, 120, 400])
def test_a_full_disk_stops_cleanly_and_goes_on_when_there_is_room(disk, finished, kilobytes, tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    folder = disk(f"size={kilobytes}k")
    words = ["reproduce", "imagenet-linear", "-s", "smoke", "-m", "rotation", "--workers", 0, "--runs", folder]
    done = bench(*words, "--checkpoint-every", 0, check=False)
    assert done.returncode == 2, done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert re.search("No space left on device|is the disk full", done.stdout + done.stderr)
    assert not half_written(folder)
    subprocess.run(["mount", "-o", "remount,size=20m", str(folder)], check=True)
    bench(*words)
    own, whole = (json.loads((of(where, "evaluate") / "result.json").read_text()) for where in (folder, finished))
    assert own["columns"] == whole["columns"]
    assert own["weights_sha256"] == whole["weights_sha256"]
