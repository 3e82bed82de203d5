"""The benchmarks of PASCAL VOC run and print; at this size their numbers mean nothing, and none is asserted."""

from __future__ import annotations

import importlib
import sys

import pytest

TINY = {
    "bench_average_precision": ("--images 60", ["voc_eval / ours from arrays", "2,000 resamples"]),
    "bench_proposals": ("--images 2 --short 64 --workers 1", ["serial: ", "boxes an image reach"]),
}


@pytest.mark.parametrize("name", TINY)
def test_it_prints(name, bench_data, monkeypatch, capsys):
    if name == "bench_average_precision":
        pytest.importorskip("detectron2")
    arguments, expected = TINY[name]
    monkeypatch.setattr(sys, "argv", [name, *arguments.split()])
    importlib.import_module(name).main()
    printed = capsys.readouterr().out
    assert all(words in printed for words in expected), printed


@pytest.mark.parametrize("name", TINY)
def test_without_data_it_says_so(name, monkeypatch, capsys):
    monkeypatch.delenv("BENCH_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", [name])
    importlib.import_module(name).main()
    assert capsys.readouterr().out.startswith("BENCH_DATA has no voc-")
