"""Table and suite -> the runs that it needs, as a DAG of pretrain -> evaluate. Pure; imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import identity, registry
from bench.errors import BenchError
from bench.identity import Spec, digest, run_id
from bench.protocols import definitions
from bench.report.spec import RowSpec, TableSpec, resolve_backbone, resolve_variant, why_missing
from bench.runfolder import RunFolder
from bench.suite import Role, Suite

_IMAGENET = 1_281_167
"""Training images of ILSVRC12, by which a budget in iterations is estimated in epochs."""

Digests = Callable[[Role, str], "str | None"]
"""(role, "train" or "test") -> the data digest, None where the data are not there (dry runs only)."""


@dataclass(frozen=True)
class Run:
    """One unit of work."""

    spec: Spec
    parent: str | None = None
    """The run whose backbone is measured."""

    @property
    def id(self) -> str:
        """``<kind>-<method>-<backbone>-<suite>-s<seed>-<8 hex of the spec>``."""
        return run_id(self.spec)


@dataclass(frozen=True)
class Skipped:
    """A row of a table that no run can fill, and why."""

    row: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """Runs in an order in which each parent precedes its children."""

    runs: tuple[Run, ...]
    skipped: tuple[Skipped, ...] = ()


def plan(
    tables: Iterable[TableSpec],
    suite: Suite,
    digests: Digests,
    *,
    methods: list[str] | None = None,
    seeds: Iterable[int] | None = None,
    as_published: bool = False,
) -> Plan:
    """Every run that the tables need at this suite, each once.

    ``methods`` and ``seeds`` narrow the plan; by default all registered methods, the suite's seeds. ``as_published``:
    each row on the backbone and under the variant of its published number.

    Raises:
        BenchError: an unknown method was asked for, or one on whose kind of data the suite trains nothing; the
            suite's backbone is unknown.
    """
    registry.entry("backbones", suite.backbone)
    registered = registry.entries("methods")
    for name in methods or []:
        registry.entry("methods", name)
    known = {entry.key for entry in registered}
    runs: dict[str, Run] = {}
    skipped: list[Skipped] = []
    for table in tables:
        for row in table.measured_rows(registered):
            if methods and row.method not in methods:
                continue
            if row.method not in known:
                skipped.append(Skipped(_label(row), f"not implemented ({why_missing(row)})"))
                continue
            lacks = suite.lacks(identity.pretraining_role(row.method))
            if lacks and not methods:
                skipped.append(Skipped(_label(row), f"not implemented ({lacks})"))
                continue
            backbone = resolve_backbone(row, suite.backbone, as_published)
            evaluations = []
            measured: dict[tuple[str, str], list[str]] = {}
            for column in table.columns:
                key = column.protocol, resolve_variant(row, column, as_published)
                measured.setdefault(key, []).append(column.reads)
            for (protocol, variant), columns in sorted(measured.items()):
                why = definitions.obstacle(protocol, variant, suite, backbone)
                why = why or registry.misfit(row.method, backbone)
                why = why or suite.lacks(definitions.load(protocol).variant(variant, suite, backbone).role)
                why = why or definitions.absent(protocol, variant, backbone, columns)
                if why:
                    skipped.append(Skipped(_label(row), f"not implemented ({why})"))
                else:
                    evaluations.append((protocol, variant))
            if not evaluations:
                continue
            for seed in suite.seeds if seeds is None else seeds:
                parent = pretrain(suite, row.method, digests, seed=seed, options=row.options, backbone=backbone)
                runs[parent.id] = parent
                for protocol, variant in evaluations:
                    child = evaluate(suite, parent, protocol, variant, digests)
                    runs[child.id] = child
    return Plan(tuple(runs.values()), tuple(dict.fromkeys(skipped)))


def pretrain(
    suite: Suite,
    method: str,
    digests: Digests,
    *,
    seed: int,
    options: dict[str, Any] | None = None,
    backbone: str | None = None,
) -> Run:
    """The run that gives a backbone, by default the suite's, its weights by ``method``.

    Raises:
        BenchError: unknown method or backbone, the method does not run on the backbone, or the suite binds no data
            set to the role.
    """
    backbone = backbone or suite.backbone
    registry.refuse_misfit(method, backbone)
    pretraining = identity.pretraining(suite, method)
    role = suite.role(identity.pretraining_role(method))
    return Run(
        {
            "kind": "pretrain",
            "suite": suite.name,
            "method": method,
            "options": suite.options(method, options),
            "backbone": backbone,
            "versions": _versions(method, backbone),
            "seed": seed,
            "pretraining": pretraining,
            "pretraining_data": role.name(),
            "pretraining_digest": digest(pretraining),
            "data": {"train": {"name": role.name(), "digest": digests(role, "train")}},
            "heldout": identity.heldout(suite, method),
        }
    )


def evaluate(suite: Suite, parent: Run, protocol: str, variant: str, digests: Digests) -> Run:
    """The run that measures ``parent``'s backbone under a protocol variant.

    Raises:
        BenchError: unknown protocol or variant, one that does not fit the suite or the backbone, or the suite binds no
            data set to its role.
    """
    found, backbone = definitions.load(protocol), parent.spec["backbone"]
    made = found.variant(variant, suite, backbone)
    why = definitions.obstacle(protocol, variant, suite, backbone)
    if why:
        raise BenchError(f"{backbone} cannot be measured under {variant} at suite {suite.name!r}: {why}")
    role = suite.role(made.role)
    shared = ("suite", "method", "options", "backbone", "versions", "seed", "pretraining_data", "pretraining_digest")
    return Run(
        {
            "kind": "evaluate",
            **{key: parent.spec[key] for key in shared},
            "protocol": {
                "name": protocol,
                "version": made.version,
                "variant": variant,
                "digest": made.digest,
                "definition": made.definition,
            },
            "role": role.describe(),
            "data": {split: {"name": role.dataset, "digest": digests(role, split)} for split in ("train", "test")},
            "parent": parent.id,
            "parent_digest": digest(parent.spec),
        },
        parent=parent.id,
    )


def pending(plan: Plan, runs: Path) -> list[Run]:
    """The runs of a plan that are not done, parents only where a child needs them."""
    todo = [run for run in plan.runs if not RunFolder(runs / run.id).done()]
    wanted = {run.parent for run in todo}
    with_children = {run.parent for run in plan.runs}
    return [run for run in todo if run.parent is not None or run.id in wanted or run.id not in with_children]


def _label(row: RowSpec) -> str:
    return row.published or row.method


def _versions(method: str, backbone: str) -> dict[str, int]:
    return {
        "method": registry.entry("methods", method).version,
        "backbone": registry.entry("backbones", backbone).version,
    }


def parse_methods(text: str | None) -> list[str] | None:
    """``a,b`` -> ["a", "b"]; None or "" -> None (all).

    Raises:
        BenchError: an unknown method.
    """
    if not text:
        return None
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    for name in wanted:
        registry.entry("methods", name)
    if not wanted:
        raise BenchError("no method named", mend="give a comma-separated list, such as rotation,random")
    return wanted


def gpu_hours(run: Run, suite: Suite) -> float:
    """A static estimate: epochs times what one costs at this suite (0 at the toy suites, which need no GPU)."""
    if run.spec["kind"] == "evaluate":
        definition = run.spec["protocol"]["definition"]
        images = definition.get("iterations", 0) * definition["batch"]
        epochs = definition.get("epochs") or images / _IMAGENET
    else:
        recipe = run.spec["pretraining"]["recipe"]
        epochs = recipe["epochs"] if recipe else 0
    return suite.gpu_hours_per_epoch * float(epochs)
