"""What a definition may say, which backbones it fits, and its digest."""

import pytest

from bench.errors import BenchError
from bench.protocols import definitions
from bench.protocols.definitions import Variant, load
from bench.suite import load as load_suite

PLACES = load("imagenet-linear").places()


def _leaves(definition, path=()):
    for key, value in definition.items():
        if isinstance(value, dict):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key)


def _changed(definition, path, value):
    if len(path) == 1:
        return {**definition, path[0]: value}
    return {**definition, path[0]: _changed(definition[path[0]], path[1:], value)}


def _at(**overrides):
    return load_suite("smoke").model_copy(update={"protocols": {"imagenet-linear": overrides}})


def test_there_is_every_variant_of_the_papers():
    assert list(load("imagenet-linear").variants) == [
        "standard",
        "zhang2016",
        "rotnet2018",
        "deepcluster2018",
        "goyal2019",
        "vissl",
        "multitask2017",
    ]


@pytest.mark.parametrize(("name", "backbone"), PLACES)
def test_any_change_of_any_key_changes_the_digest(name, backbone):
    plain = load("imagenet-linear").variant(name, None, backbone)
    paths = list(_leaves(plain.definition))
    assert len(paths) > 25
    digests = {plain.digest}
    for path in paths:
        changed = _changed(plain.definition, path, "other")
        digests.add(Variant(plain.protocol, plain.version, plain.name, changed).digest)
    assert len(digests) == 1 + len(paths)


@pytest.mark.parametrize(("name", "backbone"), PLACES)
def test_every_key_is_required_and_no_other_is_known(name, backbone):
    found = load("imagenet-linear")
    definition = found.variant(name, None, backbone).definition
    for path in _leaves(definition):
        if path[0] in {"pool", "norm", "init", "schedule"} and len(path) > 2:
            continue
        for broken in (_changed(definition, (*path[:-1], "colour"), 1), _without(definition, path)):
            with pytest.raises(BenchError) as caught:
                found.parse(broken, "here")
            assert "\n" not in str(caught.value)


def _without(definition, path):
    if len(path) == 1:
        return {key: value for key, value in definition.items() if key != path[0]}
    return {**definition, path[0]: _without(definition[path[0]], path[1:])}


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ({"batchsize": 3}, "overrides 'batchsize', which imagenet-linear does not have"),
        ({"epochs": 0}, "epochs: Input should be greater than 0"),
        ({"kernel": "lanczos"}, "kernel: Input should be 'bilinear', 'bicubic' or 'nearest'"),
        ({"heldout": 0.0}, "heldout is above 0"),
        ({"selection": "none"}, "without selection there is one rate"),
        ({"crop": 300}, "crop is larger than the resized image"),
        ({"pool": {"kind": "max"}}, "pool: Input tag 'max'"),
        ({"schedule": {"kind": "inverse-root"}}, "inverse-root knows one rate"),
        ({"features": 0}, "pool.adaptive-avg.features"),
    ],
)
def test_a_bad_override_is_one_line(overrides, line):
    with pytest.raises(BenchError, match="smoke") as caught:
        load("imagenet-linear").variant("standard", _at(**overrides))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_override_reaches_into_a_table():
    plain = load("imagenet-linear").variant("standard").definition
    made = load("imagenet-linear").variant("standard", _at(features=7, steps=[1], epochs=2)).definition
    assert made == {
        **plain,
        "epochs": 2,
        "pool": {**plain["pool"], "features": 7},
        "schedule": {**plain["schedule"], "steps": [1]},
    }


def test_overrides_leave_the_published_variants_alone():
    assert load("imagenet-linear").variant("zhang2016", _at(features=7)) == load("imagenet-linear").variant("zhang2016")


def test_a_budget_is_epochs_or_iterations():
    found = load("imagenet-linear")
    both = {**found.variant("standard").definition, "iterations": 5}
    with pytest.raises(BenchError, match="either epochs or iterations"):
        found.parse(both, "here")


@pytest.mark.parametrize(
    ("suite", "variant", "backbone", "why"),
    [
        ("smoke", "standard", "alexnet-smoke", ""),
        ("smoke", "zhang2016", "caffenet", "needs 224/227 px"),
        ("mini", "rotnet2018", "alexnet", "needs 224/227 px"),
        ("mini", "rotnet2018", "alexnet-mini", "needs 224/227 px"),
        ("alexnet", "zhang2016", "caffenet", ""),
        ("alexnet", "zhang2016", "alexnet", "needs 227 px, the backbone takes 224"),
        ("alexnet", "rotnet2018", "alexnet", ""),
        ("alexnet", "rotnet2018", "caffenet", "needs 224 px, the backbone takes 227"),
        ("alexnet", "deepcluster2018", "alexnet-sobel", ""),
        ("alexnet", "goyal2019", "caffenet-s2", ""),
        ("alexnet", "goyal2019", "alexnet", "goyal2019 does not say how to measure alexnet"),
        ("alexnet", "vissl", "caffenet", "vissl does not say how to measure caffenet"),
        ("alexnet", "noroozi2016", "caffenet", "protocol variant noroozi2016 does not exist yet"),
        ("alexnet", "standard", "vit", "backbone vit does not exist yet"),
    ],
)
def test_what_fits_where(suite, variant, backbone, why):
    assert definitions.obstacle("imagenet-linear", variant, load_suite(suite), backbone) == why


def test_a_stage_without_a_published_pool_is_named():
    found = load("imagenet-linear")
    probe = found.parse(found.variant("zhang2016").definition, "here")
    assert probe.misfit(227, ("conv1", "res2", "res3")) == "no pooling is published for res2, res3"
    standard = found.parse(found.variant("standard").definition, "here")
    assert standard.misfit(227, ("conv1", "res2", "res3")) == ""


def test_a_variant_by_backbone_names_its_backbones():
    with pytest.raises(BenchError, match="does not say how to measure alexnet.*it knows bvlc-alexnet, caffenet"):
        load("imagenet-linear").variant("goyal2019", None, "alexnet")
