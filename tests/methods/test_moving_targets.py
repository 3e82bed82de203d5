"""Targets that move, with two processes under torchrun: all hold the same table, at every update."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]

SCRIPT = """
import sys
from pathlib import Path

import torch
from toydata import ToyImages

from bench import registry
from bench.methods.base import make
from bench.runfolder import Attempt, RunFolder
from bench.training.device import as_first, fabric, rows_of_all
from bench.training.loop import Execution, embed, train

made, data = fabric(), ToyImages(90)
rank = made.global_rank
assert rows_of_all(torch.tensor([rank, 5])).tolist() == [0, 5, 1, 5]
assert as_first(torch.tensor([rank + 3.0, 1.0])).tolist() == [3.0, 1.0]

task = make("nat", "alexnet-smoke", {}, seed=0)
rows = embed(task, data, lambda batch: batch.views.float().mean((2, 3)).half(), lambda sample, generator: sample.image,
             seed=0, fabric=made, workers=0, batch=40)
assert rows.dtype == torch.float16
assert torch.equal(rows, data.images.float().mean((2, 3)).half())

for method, table in (("nat", "target_of"), ("deepcluster", "cluster_of")):
    task = make(method, "alexnet-smoke", {}, seed=0)
    task.setup(data)
    runs = Path(sys.argv[1]) / method
    if rank == 0:
        spec = {"kind": "pretrain", "method": method, "backbone": "b", "suite": "s", "seed": 0}
        attempt = RunFolder.create(runs, spec).take("test")
    made.barrier()
    if rank == 1:
        attempt = Attempt(RunFolder(next(runs.iterdir())), 1, {})
    recipe = registry.entry("methods", method).facts["recipe"].scaled(epochs=2, batch=32)
    train(task, data, recipe, seed=0, fabric=made, attempt=attempt, how=Execution(workers=0))
    mine = task.get_buffer(table)
    both = rows_of_all(mine).view(2, -1)
    assert torch.equal(both[0], both[1]), method
    if method == "nat":
        assert mine.sort().values.tolist() == list(range(90))
        assert (mine != torch.arange(90)).sum() > 20
        saved = torch.load(attempt.folder.path / "checkpoint.pt", weights_only=True)["task"][table]
        assert torch.equal(saved, mine)
print("agreed", flush=True)
"""


def test_two_processes_hold_the_same_targets(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, str(script), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("agreed") == 2
