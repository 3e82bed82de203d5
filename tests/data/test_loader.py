"""The loader: what a batch is, whoever loads it; and that no process or traceback is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data.base import Sample
from bench.data.images import open_images
from bench.data.loader import Loader, collate, sample_generator
from bench.errors import BenchError


class Numbers:
    """``size`` samples; the image of sample i is filled with i, its label is i // 2."""

    name, classes, digest = "numbers", (), "0" * 16

    def __init__(self, size):
        self.ids, self.labels = [str(i) for i in range(size)], np.arange(size) // 2

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return Sample(torch.full((1, 2, 2), index, dtype=torch.uint8), index, int(self.labels[index]))


def noisy(sample, generator):
    """A view with a draw."""
    return {"image": sample.image, "draw": torch.from_numpy(generator.random(3))}


def batches(loader, *args, **kwargs):
    """Each micro-batch as plain values."""
    found = loader.epoch(*args, **kwargs)
    return [(b.index.tolist(), b.label.tolist(), b.views["draw"].tolist(), b.views["image"].tolist()) for b in found]


def indices(loader, order):
    return [b.index.tolist() for b in loader.epoch(0, torch.as_tensor(order))]


def flat(lists):
    return list(chain.from_iterable(lists))


def plain(size, **options):
    return Loader(Numbers(size), lambda s, g: s.image, **{"seed": 0, "workers": 0, **options})


class TestBatches:
    def test_a_batch(self):
        (batch,) = Loader(Numbers(4), noisy, seed=3, batch=4, workers=0).epoch(5, torch.tensor([2, 0, 3, 1]))
        assert len(batch) == 4
        assert batch.index.tolist() == [2, 0, 3, 1]
        assert batch.label.tolist() == [1, 0, 1, 0]
        assert batch.index.dtype == batch.label.dtype == torch.int64
        assert batch.views["image"].dtype == torch.uint8
        assert batch.views["image"][:, 0, 0, 0].tolist() == [2, 0, 3, 1]
        for row, index in zip(batch.views["draw"], batch.index.tolist(), strict=True):
            assert row.tolist() == sample_generator(3, 5, index).random(3).tolist()

    def test_the_last_short_batch_is_dropped_or_not(self):
        order = [5, 3, 1, 0, 2, 4, 6]
        assert indices(plain(7, batch=3), order) == [[5, 3, 1], [0, 2, 4]]
        assert indices(plain(7, batch=3, drop_last=False), order) == [[5, 3, 1], [0, 2, 4], [6]]
        assert plain(7, batch=3).updates_per_epoch == 2
        assert plain(7, batch=3, drop_last=False).updates_per_epoch == 3

    def test_a_data_set_smaller_than_the_batch_is_the_batch(self):
        loader = plain(3, batch=256)
        assert indices(loader, [2, 1, 0]) == [[2, 1, 0]]
        assert (loader.batch, loader.updates_per_epoch, loader.micros_per_update) == (3, 1, 1)

    def test_processes_take_contiguous_shares(self):
        shares = [indices(plain(8, batch=4, rank=r, world=2), range(8)) for r in range(2)]
        assert shares == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]

    def test_micro_batches_are_of_equal_size(self):
        loader = plain(20, batch=10, micro_batch=4)
        assert indices(loader, range(20))[:3] == [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]
        assert loader.micros_per_update == 3

    def test_an_empty_share_of_the_last_batch_yields_nothing(self):
        shares = [indices(plain(5, batch=4, rank=r, world=2, drop_last=False), range(5)) for r in range(2)]
        assert shares == [[[0, 1], [4]], [[2, 3]]]

    @given(
        size=st.integers(1, 40),
        batch=st.integers(1, 20),
        micro=st.none() | st.integers(1, 8),
        world=st.integers(1, 4),
        drop_last=st.booleans(),
        start=st.integers(0, 5),
    )
    @settings(deadline=None, max_examples=60)
    def test_shards_and_micro_batches_put_together_are_the_order(self, size, batch, micro, world, drop_last, start):
        order = torch.randperm(size, generator=torch.Generator().manual_seed(size))
        options = {"batch": batch, "micro_batch": micro, "world": world, "drop_last": drop_last}
        if drop_last and min(batch, size) < world:
            with pytest.raises(BenchError, match="cannot be shared"):
                plain(size, **options)
            return
        loaders = [plain(size, rank=rank, **options) for rank in range(world)]
        whole = min(batch, size)
        used = loaders[0].updates_per_epoch * whole if drop_last else size
        shares = [[b.index.tolist() for b in loader.epoch(0, order, start)] for loader in loaders]
        assert sorted(flat(flat(shares))) == sorted(order[start * whole : used].tolist())
        assert all(0 < len(b) <= (micro or batch) for share in shares for b in share)
        if drop_last:
            per_update = [
                [flat(share[u * n : (u + 1) * n]) for u in range(len(share) // n)]
                for share, n in zip(shares, (loader.micros_per_update for loader in loaders), strict=True)
            ]
            together = [flat(parts) for parts in zip(*per_update, strict=True)]
            assert flat(together) == order[start * whole : used].tolist()
            assert all(len(batch) == whole for batch in together)

    def test_an_empty_data_set_is_refused(self):
        with pytest.raises(BenchError, match="numbers has no samples"):
            plain(0, batch=4)

    def test_an_order_of_another_length_is_refused(self):
        with pytest.raises(ValueError, match="5 indices, not 4"):
            plain(5, batch=2).epoch(0, torch.arange(4))


class TestRandomness:
    def test_a_generator_is_a_function_of_its_key(self):
        first = sample_generator(7, 3, 11).random(4)
        assert first.tolist() == sample_generator(7, 3, 11).random(4).tolist()
        for other in ((8, 3, 11), (7, 4, 11), (7, 3, 12), (3, 7, 11), (7, 11, 3)):
            assert not np.isin(first, sample_generator(*other).random(4)).any()

    def test_it_is_philox_under_that_key(self):
        """Pinned: another stream would move every number."""
        expected = np.random.Generator(
            np.random.Philox(key=np.array([2**63 + 5, (3 << 40) | 11], dtype=np.uint64))
        ).random(8)
        assert sample_generator(2**63 + 5, 3, 11).random(8).tolist() == expected.tolist()
        assert sample_generator(0, 0, 0).integers(0, 2**32) == 149215387

    def test_neighbouring_keys_are_independent(self):
        draws = np.array([sample_generator(0, epoch, index).random(2) for epoch in range(2) for index in range(2000)])
        assert abs(draws.mean() - 0.5) < 0.02
        table = draws.reshape(2, 2000, 2)
        for one, other in (
            (table[0, :-1, 0], table[0, 1:, 0]),
            (table[0, :, 0], table[1, :, 0]),
            (table[0, :, 0], table[0, :, 1]),
        ):
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.1

    def test_workers_batch_sharding_and_order_do_not_matter(self):
        def draws(order, **options):
            with Loader(Numbers(12), noisy, seed=1, **options) as loader:
                found = {}
                for batch in loader.epoch(2, order):
                    found.update(zip(batch.index.tolist(), batch.views["draw"].tolist(), strict=True))
            return found

        forward, backward = torch.arange(12), torch.arange(12).flip(0)
        expected = draws(forward, batch=4, workers=0)
        assert len(expected) == 12
        assert draws(backward, batch=6, micro_batch=2, workers=0) == expected
        assert draws(backward, batch=3, workers=2) == expected
        shards = [draws(forward, batch=4, workers=0, rank=rank, world=2) for rank in range(2)]
        assert shards[0] | shards[1] == expected

    @pytest.mark.parametrize("workers", [1, 2])
    def test_batches_are_the_same_with_workers(self, workers):
        order = torch.randperm(20)
        alone = Loader(Numbers(20), noisy, seed=1, batch=6, micro_batch=4, workers=0)
        with Loader(Numbers(20), noisy, seed=1, batch=6, micro_batch=4, workers=workers) as helped:
            for epoch in range(2):
                assert batches(helped, epoch, order) == batches(alone, epoch, order)

    @pytest.mark.parametrize("workers", [0, 2])
    def test_an_epoch_is_taken_up_where_it_was(self, workers):
        order = torch.randperm(20)
        with Loader(Numbers(20), noisy, seed=1, batch=6, micro_batch=2, workers=workers) as loader:
            whole = batches(loader, 4, order)
            assert loader.micros_per_update == 3
            assert len(whole) == 9
            for start in range(4):
                assert batches(loader, 4, order, start=start) == whole[3 * start :]

    @pytest.mark.parametrize("workers", [0, 1])
    def test_torchs_global_generator_is_left_alone(self, workers):
        torch.manual_seed(0)
        before = torch.get_rng_state()
        with Loader(Numbers(8), noisy, seed=1, batch=4, workers=workers) as loader:
            batches(loader, 0, torch.arange(8))
            batches(loader, 1, torch.arange(8))
        assert torch.equal(torch.get_rng_state(), before)


class TestCollate:
    def test_tuples_and_dicts(self):
        views = [(torch.tensor([i]), {"a": torch.tensor(i), "b": (i, i / 2)}) for i in range(3)]
        first, second = collate(views)
        assert first.tolist() == [[0], [1], [2]]
        assert second["a"].tolist() == [0, 1, 2]
        assert second["b"][0].dtype == torch.int64
        assert second["b"][1].tolist() == [0, 0.5, 1]

    def test_what_cannot_be_collated(self):
        with pytest.raises(TypeError, match="not str"):
            collate(["a", "b"])


class TestProcesses:
    def test_workers_live_from_epoch_to_epoch_and_end_with_the_loader(self):
        with Loader(Numbers(8), lambda s, g: os.getpid(), seed=0, batch=2, workers=2) as loader:
            pids = [{int(b.views[0]) for b in loader.epoch(e, torch.arange(8))} for e in range(3)]
            assert pids[0] == pids[1] == pids[2]
            assert len(pids[0]) == 2
            assert os.getpid() not in pids[0]
        assert not any(alive(pid) for pid in pids[0])

    def test_an_epoch_may_be_left_half_way(self):
        with Loader(Numbers(40), noisy, seed=0, batch=2, workers=2) as loader:
            next(loader.epoch(0, torch.arange(40)))
            assert indices(loader, range(40)) == [[i, i + 1] for i in range(0, 40, 2)]

    def test_closing_twice_and_using_again(self):
        loader = Loader(Numbers(4), noisy, seed=0, batch=2, workers=1)
        loader.close()
        first = batches(loader, 0, torch.arange(4))
        loader.close()
        loader.close()
        assert batches(loader, 0, torch.arange(4)) == first
        loader.close()

    def test_a_worker_uses_one_thread_and_hears_no_signal(self):
        def view(sample, generator):
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
                os.kill(os.getpid(), number)
            return torch.get_num_threads()

        torch.set_num_threads(2)
        with Loader(Numbers(4), view, seed=0, batch=2, workers=1) as loader:
            assert [b.views.tolist() for b in loader.epoch(0, torch.arange(4))] == [[1, 1], [1, 1]]

    @pytest.mark.parametrize("workers", [0, 2])
    def test_a_corrupt_image_is_the_same_line_everywhere(self, tmp_path, workers):
        (tmp_path / "toy/train").mkdir(parents=True)
        (tmp_path / "toy/train/bad.jpg").write_bytes(b"junk")
        data = open_images("toy", tmp_path / "toy", ("train",), tmp_path / "cache")
        with (
            Loader(data, lambda s, g: s.image, seed=0, batch=1, workers=workers) as loader,
            pytest.raises(BenchError, match=r"^corrupt image: not an image .*bad\.jpg.*skip_corrupt") as caught,
        ):
            next(loader.epoch(0, torch.arange(1)))
        assert "\n" not in str(caught.value)
        assert "worker" not in str(caught.value)

    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_fault_in_a_view_keeps_its_traceback(self, workers):
        def view(sample, generator):
            raise KeyError("a fault of the method")

        with Loader(Numbers(4), view, seed=0, batch=2, workers=workers) as loader:  # noqa: SIM117
            with pytest.raises(KeyError, match="a fault of the method"):
                next(loader.epoch(0, torch.arange(4)))

    def test_a_worker_that_hangs_is_ended(self, monkeypatch):
        monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.2)
        loader = Loader(
            Numbers(4), lambda s, g: time.sleep(3600) if s.index else os.getpid(), seed=0, batch=1, workers=1
        )
        pid = int(next(loader.epoch(0, torch.arange(4))).views)
        assert alive(pid)
        loader.close()
        limit = time.monotonic() + 5
        while alive(pid) and time.monotonic() < limit:
            time.sleep(0.01)
        assert not alive(pid)

    def test_a_killed_worker_is_one_line(self):
        def view(sample, generator):
            os.kill(os.getpid(), signal.SIGKILL)

        with Loader(Numbers(4), view, seed=0, batch=2, workers=1) as loader:  # noqa: SIM117
            with pytest.raises(BenchError, match=r"a worker of the loader died: .*pid.*fewer workers"):
                next(loader.epoch(0, torch.arange(4)))

    def test_workers_end_when_the_main_process_is_killed(self, tmp_path):
        script = textwrap.dedent("""
            import os, sys, time
            import numpy as np, torch
            from bench.data.base import Sample
            from bench.data.loader import Loader

            class Numbers:
                name, labels = "numbers", np.zeros(1000)
                def __len__(self): return 1000
                def __getitem__(self, index): return Sample(torch.zeros(1), index)

            loader = Loader(Numbers(), lambda s, g: os.getpid(), seed=0, batch=1, workers=2)
            found = loader.epoch(0, torch.arange(1000))
            print(int(next(found).views), int(next(found).views), flush=True)
            time.sleep(60)
        """)
        main = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        pids = [int(pid) for pid in main.stdout.readline().split()]
        assert len(pids) == 2
        main.kill()
        main.wait()
        main.stdout.close()
        limit = time.monotonic() + 15
        while any(alive(pid) for pid in pids) and time.monotonic() < limit:
            time.sleep(0.1)
        assert not any(alive(pid) for pid in pids)


def alive(pid):
    """Whether the process runs: a zombie that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_in_order_nothing_is_dropped():
    loader = plain(5, batch=2)
    assert [b.index.tolist() for b in loader.in_order()] == [[0, 1], [2, 3], [4]]
    halves = [[b.index.tolist() for b in plain(5, batch=2, rank=r, world=2).in_order()] for r in range(2)]
    assert halves == [[[0], [2], [4]], [[1], [3]]]


def test_a_sample_generator_is_cheap():
    """Under 10 us on a quiet core; the bound allows for a busy one."""
    best = min(timed(lambda: [sample_generator(1, 2, i) for i in range(1000)]) for _ in range(5))
    assert best / 1000 < 30e-6


def timed(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
