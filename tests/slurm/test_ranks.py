"""Several processes: two on one node, and one on each of two nodes, over gloo; they find what one process finds."""

from __future__ import annotations

import pytest

from bench.files import read_json

CELL = ("--suite", "smoke", "--methods", "random,rotation")


def profile(folder, default):
    file = folder / "ranks.toml"
    start = 'title = "t"\nlauncher = "slurm"\nsignal_seconds = 30\n[default]\nmemory = "2G"\ntime = "00:30:00"\n'
    file.write_text(start + default)
    return file


def results(runs):
    return {path.parent.name.split("-")[1]: read_json(path) for path in runs.glob("evaluate-*/result.json")}


@pytest.fixture(scope="module")
def one(cluster, tmp_path_factory):
    runs = tmp_path_factory.mktemp("one")
    cluster.reproduce(runs, "inline", "--suite", "smoke", "--methods", "random")
    return results(runs)["random"]


@pytest.mark.parametrize("shape", ["processes = 2\n", "nodes = 2\n"], ids=["one node", "two nodes"])
def test_two_processes_find_what_one_finds(shape, cluster, one, tmp_path):
    cluster.reproduce(tmp_path / "runs", profile(tmp_path, shape), *CELL)
    cluster.wait(tmp_path / "runs")
    found = results(tmp_path / "runs")
    two = found["random"]
    assert two["weights_sha256"] == one["weights_sha256"]
    for name, number in one["columns"].items():
        assert two["columns"][name]["value"] == pytest.approx(number["value"], abs=1e-5), name
    for folder in (tmp_path / "runs").glob("*/spec.json"):
        assert len(list(folder.parent.glob("attempt-*.json"))) == 1
    (card,) = (tmp_path / "runs").glob("pretrain-rotation-*/card.json")
    training = read_json(card)["training"]
    assert (training["world_size"], training["batch"], training["batch_per_process"]) == (2, 32, 16)
    assert training["lr"] == {"main": pytest.approx(read_json(card)["pretraining"]["recipe"]["optimiser"]["lr"])}
    assert read_json(card)["hardware"]["world_size"] == 2


def test_each_process_has_its_gpu_and_says_so(cluster, tmp_path):
    shape = 'gpus = 2\n[environment]\nNVIDIA = "none"\n'
    file = profile(tmp_path, shape)
    said = cluster.bench("profile", "check", file, "--runs", tmp_path / "runs")
    assert "pretrain, evaluate:" in said
    assert "2 processes on 1 nodes" in said
    assert "GPUs that Slurm gave: 0,1" in said
    assert "torch: ok" in said
