"""A small house of its own (methods, a backbone, a protocol) and results to draw from, so that no golden table moves
when a method is added."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from toy_house import PROTOCOL, forget, method

from bench import identity, registry, results
from bench import suite as suites
from bench.files import canonical
from bench.launch.state import COLUMNS as STATES
from bench.report import spec
from bench.results import COLUMNS as RESULTS
from bench.results import sha256


@pytest.fixture
def house(tmp_path, monkeypatch):
    """The folder of a registry that holds five methods, the backbone ``toy`` and one protocol; nothing is published."""
    for kind in ("methods", "backbones", "protocols"):
        (tmp_path / kind).mkdir()
    methods = tmp_path / "methods"
    labels = 'role = "reference"\n    needs = {"image", "label"}\n    recipe = Recipe(epochs=2, batch=4)'
    method(methods, "supervised", "Supervised", "krizhevsky2012imagenet", more=labels)
    baseline = 'role = "baseline"\n    recipe = None'
    method(methods, "random", "Random", "zhang2017split", more=baseline)
    method(methods, "random-rescaled", "Random rescaled", "krahenbuhl2016data", more=baseline)
    method(methods, "rotation", "Rotation", "gidaris2018unsupervised", more="recipe = Recipe(epochs=2, batch=4)")
    method(methods, "zeta", "Zeta <i>&_|% {x} $1", "zeta2026")
    (tmp_path / "backbones" / "toy.py").write_text(
        'class Toy:\n    title, version = "Toy", 1\n    variants = {"toy": {}, "caffenet": {}}\n', encoding="utf-8"
    )
    (tmp_path / "protocols" / "imagenet_linear.py").write_text(
        'class Probe:\n    title, version, role = "Linear", 1, "imagenet"\n'
        '    statistic = "bench.protocols.statistics:of_ranks"\n',
        encoding="utf-8",
    )
    (tmp_path / "protocols" / "imagenet_linear.toml").write_text(PROTOCOL, encoding="utf-8")
    monkeypatch.setattr(registry, "_HERE", tmp_path)
    monkeypatch.setattr(results, "declared", lambda name: tmp_path / name)
    forget()
    yield tmp_path
    monkeypatch.undo()
    forget()


@pytest.fixture
def rotnet():
    """The Rotation paper's table, at home in the toy suite."""
    return spec.load("imagenet-linear").model_copy(update={"suite": "toy"})


@pytest.fixture
def evil(house):
    """The house with one method more, whose title is the given text."""

    def add(title):
        quoted = title.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\x1b", "\\x1b")
        method(house / "methods", "evil", quoted, "evil}{")
        forget()

    return add


@pytest.fixture
def suite():
    """A function: a suite at toy scale, some keys of it changed."""

    def make(**changes):
        data = {
            "title": "Toy",
            "description": "For tests.",
            "backbone": "toy",
            "roles": {
                "pretrain": {"dataset": "scenes", "train": ["unlabelled"]},
                "imagenet": {"dataset": "scenes", "train": ["train"], "test": ["val"]},
            },
        }
        return suites.parse("toy", {**data, **changes}, "toy.toml")

    return make


@pytest.fixture
def evidence(tmp_path):
    """A function: evidence of so many hits among N images, for the columns ``top1@<stage>`` -> (path, sha256)."""

    def make(values, n, seed):
        rng = np.random.default_rng(seed)
        hits = np.stack([rng.permutation(n) < round(value / 100 * n) for value in values.values()])
        stages = np.array([column.partition("@")[2] for column in values])
        (tmp_path / "evidence").mkdir(exist_ok=True)
        file = tmp_path / "evidence" / f"{len(list((tmp_path / 'evidence').iterdir()))}.npz"
        np.savez(file, rank=np.where(hits, 0, 9).astype(np.uint8), stages=stages)
        return str(file), sha256(file)

    return make


@pytest.fixture
def result(evidence):
    """A function: the rows of one result, fresh unless changed, as ``bench.results.load`` gives them."""

    def make(suite, key, values, *, seed=0, half=1.5, row_options=None, **changes):
        if not isinstance(values, dict):
            values = {f"top1@conv{i}": value for i, value in enumerate(values, 1)}
        n = changes.get("n", 2000)
        file, digest = evidence(values, n, [seed, *key.encode()])
        shared = {
            "suite": suite.name,
            "method": key,
            "options": canonical(suite.options(key, row_options)),
            "backbone": suite.backbone,
            "pretraining_data": identity.pretraining_data(suite, key),
            "seed": seed,
            "protocol": "imagenet-linear",
            "variant": "standard",
            "protocol_version": 1,
            **identity.current(suite, key, suite.backbone, "imagenet-linear", "standard"),
            "n": 2000,
            "chance": 2.0,
            "unit": "%",
            "data_digest": "d0",
            "weights_sha256": "0" * 64,
            "evidence": file,
            "evidence_sha256": digest,
            "command": "bench run",
            "path": "result.json",
            "source": "runs",
        }
        return [
            {**shared, "column": column, "value": v, "low": v - half, "high": v + half, "heldout": v + 0.5, **changes}
            for column, v in values.items()
        ]

    return make


@pytest.fixture
def state():
    """A function: one run that is not done, as ``bench.launch.state.frame`` gives it."""

    def make(kind, key, state, reason="", *, seed=0, options="{}", backbone="toy", **more):
        evaluates = kind == "evaluate"
        return {
            "kind": kind,
            "suite": "toy",
            "method": key,
            "options": options,
            "backbone": backbone,
            "protocol": "imagenet-linear" if evaluates else None,
            "variant": "standard" if evaluates else None,
            "seed": seed,
            "state": state,
            "reason": reason,
            "id": f"{kind}-{key}-{backbone}-toy-s{seed}-00000000",
            **more,
        }

    return make


@pytest.fixture
def frames():
    """A function: (results, states) as data frames from lists of records."""

    def make(results=(), states=()):
        extra = [key for one in states for key in one if key not in STATES]
        columns = [*STATES, *dict.fromkeys(extra)]
        return pd.DataFrame(list(results), columns=RESULTS), pd.DataFrame(list(states), columns=columns)

    return make
