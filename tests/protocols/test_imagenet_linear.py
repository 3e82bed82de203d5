import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from toydata import ToyImages

from bench.backbones.base import build
from bench.data.heldout import held_out
from bench.metrics import ranks
from bench.protocols.definitions import load
from bench.protocols.heads import LinearHeads, rank_of
from bench.protocols.imagenet_linear import ImageNetLinear
from bench.runfolder import RunFolder
from bench.suite import load as load_suite
from bench.training.device import fabric
from bench.training.loop import Execution
from bench.training.task import Batch, Step

SMALL = {"features": 256, "batch": 32, "epochs": 2, "steps": [1], "rates": [0.01, 0.1], "heldout": 0.25}
NORMS = [
    {"kind": "none"},
    {"kind": "batch", "momentum": 0.1, "eps": 1e-5},
    {"kind": "batch-affine", "momentum": 0.1, "eps": 1e-5, "decay": 0.0},
]


def _protocol(**changes):
    overrides = {"imagenet-linear": {**SMALL, **changes}}
    at = load_suite("smoke").model_copy(update={"protocols": overrides})
    return ImageNetLinear(load("imagenet-linear").variant("standard", at))


def _backbone():
    torch.manual_seed(0)
    return build("alexnet-smoke")


def _evaluate(tmp_path, name="run", protocol=None, backbone=None, train=None, test=None, seed=0):
    folder = RunFolder.create(
        tmp_path / name, {"kind": "evaluate", "method": "m", "backbone": "b", "suite": "s", "seed": 0}
    )
    return (protocol or _protocol()).evaluate(
        backbone or _backbone(),
        train or ToyImages(128),
        test or ToyImages(64, name="toy/test"),
        method="rotation",
        seed=seed,
        fabric=fabric(),
        attempt=folder.take("test"),
        how=Execution(workers=0),
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return _evaluate(tmp_path_factory.mktemp("measured"))


def test_it_measures_every_stage(measured):
    columns = ImageNetLinear.columns(measured.evidence)
    assert set(columns) == {f"top{k}@conv{i}" for k in (1, 5) for i in range(1, 6)}
    for name, number in columns.items():
        assert number["low"] <= number["value"] <= number["high"]
        assert number["n"] == 64
        assert number["chance"] == (25 if name.startswith("top1") else 100)
    assert columns["top1@conv1"]["value"] > 50, "stripes are easy"
    assert columns["top5@conv1"]["value"] == 100, "four classes"


def test_evidence_is_compact_and_agrees_with_the_labels(measured):
    test = ToyImages(64, name="toy/test")
    assert measured.evidence["rank"].dtype == np.uint8
    assert measured.evidence["prediction"].dtype == np.uint16
    assert ImageNetLinear.contradictions(measured.evidence, test) == []


def test_tampered_evidence_contradicts_the_labels(measured):
    test = ToyImages(64, name="toy/test")
    wrong = np.flatnonzero(measured.evidence["rank"][0])
    forged = {**measured.evidence, "rank": measured.evidence["rank"].copy()}
    forged["rank"][0, wrong[:3]] = 0
    assert ImageNetLinear.contradictions(forged, test) == [
        "conv1: rank and prediction contradict the labels of 3 images"
    ]
    other = ToyImages(64, name="toy/other")
    assert "other images" in ImageNetLinear.contradictions(measured.evidence, other)[0]


def test_the_choice_of_a_rate_never_sees_the_test_split(tmp_path, measured):
    class Watched(ToyImages):
        seen = 0

        def __getitem__(self, index):
            Watched.seen += 1
            return super().__getitem__(index)

    shuffled = Watched(64, name="toy/test")
    shuffled.labels = shuffled.labels[::-1].copy()
    shuffled.images = 255 - shuffled.images
    again = _evaluate(tmp_path, test=shuffled)
    assert again.selection == measured.selection
    assert again.training["curve"] == measured.training["curve"]
    assert Watched.seen == len(shuffled), "each test image is looked at once, by the chosen heads"


def test_the_held_out_slice_is_not_trained_on(tmp_path):
    train = ToyImages(128)
    held = held_out(train.ids, train.labels, SMALL["heldout"])
    touched = ToyImages(128)
    touched.images[torch.from_numpy(held)] = 0
    a = _evaluate(tmp_path, "a", train=train)
    b = _evaluate(tmp_path, "b", train=touched)
    assert [r["loss"] for r in a.training["curve"]] == [r["loss"] for r in b.training["curve"]]
    assert a.selection["heldout"] != b.selection["heldout"]
    assert a.selection["n"] == int(held.sum())


def test_the_backbone_stays_as_it_was(tmp_path):
    backbone = _backbone().train()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    _evaluate(tmp_path, backbone=backbone)
    after = backbone.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before), "weights and running statistics never move"


@pytest.mark.parametrize("norm", NORMS, ids=lambda norm: norm["kind"])
@pytest.mark.parametrize("stage", ["conv1", "conv3", "conv5"])
def test_shared_forward_equals_a_run_for_each_stage_bit_for_bit(stage, norm):
    made, images, protocol = fabric(), ToyImages(64), _protocol(norm=norm)
    torch.manual_seed(1)
    shared = LinearHeads(_backbone(), protocol.probe, 4, made)
    alone = LinearHeads(_backbone(), protocol.probe, 4, made)
    alone.heads = torch.nn.ModuleDict({stage: alone.heads[stage]})
    alone.load_state_dict({k: v for k, v in shared.state_dict().items() if f".{stage}." in k})
    for heads in (shared, alone):
        optimiser = heads.optimiser_of("main", protocol.recipe(64).optimiser, heads.parameters())
        heads.train()
        for at in (0, 32):
            views = images.images[at : at + 32]
            batch = Batch(views, torch.arange(32), torch.from_numpy(images.labels[at : at + 32]))
            (_, loss) = next(iter(heads.losses(batch, Step(0, 0, 1), torch.Generator())))
            optimiser.zero_grad()
            loss.total.backward()
            optimiser.step()
    for name, value in alone.state_dict().items():
        assert torch.equal(value, shared.state_dict()[name]), name


def test_every_rate_starts_from_the_same_draw():
    heads = LinearHeads(_backbone(), _protocol().probe, 4, fabric())
    for head in heads.heads.values():
        assert torch.equal(head.weight[0], head.weight[1])


def test_pooling_takes_the_largest_square_within_the_bound():
    heads = LinearHeads(build("alexnet"), _protocol(features=9600).probe, 10, fabric())
    assert [head.pool.output_size for head in heads.heads.values()] == [12, 7, 5, 6, 6]
    small = LinearHeads(_backbone(), _protocol(features=3).probe, 10, fabric())
    assert [head.pool.output_size for head in small.heads.values()] == [1] * 5
    large = LinearHeads(_backbone(), _protocol(features=10**6).probe, 10, fabric())
    assert large.heads["conv5"].pool.output_size == _backbone().shapes()["conv5"].height


def test_an_edge_of_the_sweep_warns(tmp_path):
    far = _evaluate(tmp_path, protocol=_protocol(rates=[1e-6, 1e-5]))
    assert any("at the edge of the sweep" in warning for warning in far.warnings)


def test_rank_by_hand():
    scores = torch.tensor([[0.1, 0.5, 0.4], [0.3, 0.3, 0.3], [0.3, 0.3, 0.3], [0.9, 0.0, 0.1]])
    label = torch.tensor([2, 0, 2, 1])
    assert rank_of(scores, label).tolist() == [1, 0, 2, 2]
    assert ((rank_of(scores, label) == 0) == (scores.argmax(1) == label)).all()


def test_top_k_by_hand():
    number = ranks.top_k(np.array([0, 0, 3, 5, 255], dtype=np.uint8), classes=1000, k=5)
    assert number["value"] == pytest.approx(60)
    assert (number["n"], number["chance"]) == (5, 0.5)


def test_a_suite_changes_the_digest_and_the_standard_only():
    found = load("imagenet-linear")
    digests = {found.variant("standard", load_suite(s)).digest for s in ("smoke", "demo", "mini", "alexnet")}
    assert len(digests) == 4
    assert found.variant("standard").digest == found.variant("standard", load_suite("alexnet")).digest


WORKER = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
import torch
from test_imagenet_linear import _protocol, _backbone, ToyImages, RunFolder, Execution, fabric
from bench.runfolder import Attempt
made = fabric()
spec = {{"kind": "evaluate", "method": "m", "backbone": "b", "suite": "s", "seed": 0}}
folder = RunFolder.create(Path({tmp!r}), spec)
made.barrier()
attempt = folder.take("test") if made.is_global_zero else Attempt(folder, 1, {{}})
made.barrier()
out = _protocol().evaluate(_backbone(), ToyImages(128), ToyImages(64, name="toy/test"), method="rotation",
                seed=0, fabric=made,
                           attempt=attempt, how=Execution(workers=0))
if made.is_global_zero:
    torch.save([out.selection, out.training["curve"], out.evidence["rank"].tolist()], {out!r})
"""


def test_two_processes_measure_as_one(tmp_path, measured):
    here, out, script = Path(__file__).parent, tmp_path / "out.pt", tmp_path / "worker.py"
    script.write_text(WORKER.format(here=str(here), tmp=str(tmp_path / "two"), out=str(out)))
    env = {**os.environ, "PYTHONPATH": f"{here.parent}:{os.environ.get('PYTHONPATH', '')}", "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(launch, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    selection, curve, rank = torch.load(out, weights_only=True)
    assert selection == measured.selection
    assert [r["loss"] for r in curve] == pytest.approx([r["loss"] for r in measured.training["curve"]], rel=1e-5)
    assert rank == measured.evidence["rank"].tolist()
