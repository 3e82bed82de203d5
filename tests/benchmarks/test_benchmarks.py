"""The benchmarks run and print their ratios; at this size the ratios themselves mean nothing, and none is asserted."""

from __future__ import annotations

import importlib
import re
import sys

import pytest

TINY = {
    "one_pass": ("--images 4", 2),
    "probe_epoch": ("--images 4", 1),
    "sweep": ("--images 2", 1),
    "decoding": ("--images 8", 3),
    "status_of_runs": ("--runs 20", 1),
    "tables_of_results": ("--methods 6 --tables 2 --seeds 2", 2),
    "site_of_results": ("--methods 3 --suites 1 --seeds 1", 3),
    "lightly_side_by_side": ("--classes 5 --train 30 --test 4 --epochs 1", 2),
}
RATIO = re.compile(r" +\d+\.\d\d x .* \d+\.\d\d s / \d+\.\d\d s$", re.MULTILINE)


@pytest.mark.parametrize("name", TINY)
def test_it_prints_its_ratios(name, monkeypatch, capsys):
    arguments, ratios = TINY[name]
    monkeypatch.delenv("BENCH_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", [name, *arguments.split()])
    importlib.import_module(name).main()
    printed = capsys.readouterr().out
    assert len(RATIO.findall(printed)) == ratios, printed
