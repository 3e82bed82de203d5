"""One classifier on a learnt, sparse mixture of the stages: ``multitask2017``."""

import numpy as np
import pytest
import torch
from toydata import ToyImages

from bench import plan as planning
from bench.backbones.base import build
from bench.protocols import definitions
from bench.protocols.definitions import Variant, load
from bench.protocols.heads import Coefficients, LinearHeads
from bench.protocols.imagenet_linear import ImageNetLinear
from bench.report import spec as tables
from bench.runfolder import RunFolder
from bench.suite import load as load_suite
from bench.training.device import fabric
from bench.training.loop import Execution
from bench.training.task import Batch, Step

SMALL = {"pool": {"kind": "adaptive-avg", "features": 64}, "batch": 32, "epochs": 6, "heldout": 0.25}
STAGES = ("conv1", "conv2", "conv3", "conv4", "conv5")


def _protocol(lasso=0.01, rates=(0.01, 0.1)):
    plain = load("imagenet-linear").variant("multitask2017")
    schedule = {"kind": "steps", "steps": [4], "gamma": 0.1}
    changes = {**SMALL, "schedule": schedule, "rates": rates, "mixture": {"lasso": lasso}}
    return ImageNetLinear(Variant(plain.protocol, plain.version, plain.name, {**plain.definition, **changes}))


def _heads(lasso=0.01):
    torch.manual_seed(0)
    return LinearHeads(build("alexnet-smoke"), _protocol(lasso).probe, 4, fabric())


def _measure(tmp_path, name="run", lasso=0.01):
    torch.manual_seed(0)
    spec = {"kind": "evaluate", "method": "m", "backbone": "b", "suite": "s", "seed": 0}
    attempt = RunFolder.create(tmp_path / name, spec).take("test")
    return _protocol(lasso).evaluate(
        build("alexnet-smoke"),
        ToyImages(128),
        ToyImages(64, name="toy/test"),
        method="multi-task",
        seed=0,
        fabric=fabric(),
        attempt=attempt,
        how=Execution(workers=0),
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    return _measure(tmp_path_factory.mktemp("measured"))


def test_its_columns_are_the_mixture_s(measured):
    columns = ImageNetLinear.columns(measured.evidence)
    assert set(columns) == {"top1@mixed", "top5@mixed"}
    assert columns["top1@mixed"]["value"] > 50, "stripes are easy"
    assert ImageNetLinear.contradictions(measured.evidence, ToyImages(64, name="toy/test")) == []


def test_the_coefficients_are_of_unit_length_and_stand_in_the_selection(measured):
    assert list(measured.selection["heldout"]) == ["mixed"]
    coefficients = measured.selection["mixture"]
    assert tuple(coefficients) == STAGES
    assert np.linalg.norm(list(coefficients.values())) == pytest.approx(1, abs=1e-3)
    assert len(set(coefficients.values())) == 5, "they were learnt"


def test_a_heavier_penalty_reads_fewer_stages(tmp_path, measured):
    heavy = _measure(tmp_path, lasso=3.0)
    shares = [sum(abs(a) for a in found.selection["mixture"].values()) for found in (measured, heavy)]
    assert 1 <= shares[1] < shares[0] <= 5**0.5 + 1e-3


def test_the_mixture_by_hand():
    heads = _heads()
    alone = {stage: torch.randn(3, 2, 4) for stage in STAGES}
    with torch.no_grad():
        heads.mixture.alpha.copy_(torch.tensor([[3.0, 0, 0, 0, 4], [0, 0, 1, 0, 0]]))
    mixed = heads.mixture(alone)
    torch.testing.assert_close(mixed[:, 0], 0.6 * alone["conv1"][:, 0] + 0.8 * alone["conv5"][:, 0])
    torch.testing.assert_close(mixed[:, 1], alone["conv3"][:, 1])
    assert heads.mixture.penalty().tolist() == pytest.approx([0.014, 0.01])


def test_every_rate_trains_alone():
    """A rate's classifier and coefficients are those of a run with that rate only."""
    images = ToyImages(64)
    both, one = (LinearHeads(build("alexnet-smoke"), _protocol(rates=rates).probe, 4, fabric()) for rates in _RATES)
    one._frozen = both._frozen
    one.load_state_dict({key: value[1:] for key, value in both.state_dict().items() if "norm" not in key}, strict=False)
    for heads, rates in zip((both, one), _RATES, strict=True):
        optimiser = heads.optimiser_of("main", _protocol(rates=rates).recipe(64).optimiser, heads.parameters())
        for at in (0, 32, 0, 32):
            label = torch.from_numpy(images.labels[at : at + 32])
            batch = Batch(images.images[at : at + 32], torch.arange(32), label)
            ((_, loss),) = heads.train().losses(batch, Step(0, 0, 1), torch.Generator())
            optimiser.zero_grad()
            loss.total.backward()
            optimiser.step()
    torch.testing.assert_close(both.mixture.values()[1:], one.mixture.values())
    assert not torch.equal(one.mixture.values(), Coefficients(1, STAGES, 0.0).values())


_RATES = ((0.01, 0.1), (0.1,))


@pytest.mark.parametrize(
    ("variant", "backbone", "column", "why"),
    [
        ("multitask2017", "resnet101-v2", "top5@mixed", ""),
        ("multitask2017", "alexnet-mini", "top1@mixed", ""),
        ("multitask2017", "alexnet-mini", "top1@conv3", "alexnet-mini has no stage conv3"),
        ("standard", "alexnet-mini", "top1@mixed", "alexnet-mini has no stage mixed"),
        ("standard", "alexnet-mini", "top1@conv3", ""),
    ],
)
def test_which_columns_there_are(variant, backbone, column, why):
    assert definitions.absent("imagenet-linear", variant, backbone, [column]) == why


def test_its_table_plans_joint_training_on_parts_of_the_tasks():
    made = planning.plan([tables.load("multitask-resnet101")], load_suite("smoke"), lambda *_: "0" * 16)
    trained = [run.spec["options"].get("tasks") for run in made.runs if run.spec["method"] == "multi-task"]
    measured = [run.spec["protocol"] for run in made.runs if run.spec["kind"] == "evaluate"]
    variants = {protocol["variant"] for protocol in measured if protocol["name"] == "imagenet-linear"}
    assert variants == {"multitask2017"}
    assert ["context-prediction", "colorization"] in trained
    assert None in trained, "all four"
    assert len({str(tasks) for tasks in trained}) == 5
