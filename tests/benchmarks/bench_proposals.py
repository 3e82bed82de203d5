"""Selective Search: images/s serial and parallel, and how many objects its boxes reach.

    BENCH_DATA=... python tests/benchmarks/bench_proposals.py [--images 40] [--workers 2] [--short 0]

On photographs of ``voc-mini``'s test split; with ``--short`` they are shrunk first. Beside the recall stands that of
the method's authors: 96.7 % of the objects of VOC07 test with 1,536 boxes an image (van de Sande et al., ICCV 2011,
abstract). Speeds are by the clock, for what processes gain; the CPU time of an image is that of the serial pass.
"""

from __future__ import annotations

import time

import measuring as m
import numpy as np

from bench.data.catalog import open_dataset
from bench.data.images import subset
from bench.data.proposals import Proposals, SelectiveSearch, compute
from bench.data.voc import Voc
from bench.metrics.proposal_recall import recall


def main() -> None:
    """Print the speeds and the recall."""
    asked = m.arguments(__doc__ or "", images=40, workers=2, short=0)
    search = SelectiveSearch(short=asked.short or None)
    if not (m.bench_data() / "voc-mini").is_dir():
        print("BENCH_DATA has no voc-mini")
        return
    with m.folder() as place:
        whole = open_dataset("voc-mini", ("test",), root=m.bench_data(), cache=place)
        assert isinstance(whole, Voc)
        drawn = np.linspace(0, len(whole) - 1, asked.images).astype(int)
        some, known = subset(whole, drawn), [whole.annotations[index] for index in drawn]
        m.heading(f"Selective Search ({search}) of {len(some)} photographs")

        def speed(what: str, workers: int) -> Proposals:
            started, cpu = time.perf_counter(), time.process_time()
            made = compute(some, search, place / what, workers=workers)
            seconds, spent = time.perf_counter() - started, time.process_time() - cpu
            alone = f", {spent / len(some):.2f} s of CPU time an image" if not workers else ""
            print(f"  {what}: {len(some) / seconds:.2f} images/s{alone}")
            return made

        found = speed("serial", 0)
        assert speed(f"{asked.workers} processes", asked.workers).digest == found.digest
        mean = sum(map(len, found)) / len(found)
        print(f"  {mean:,.0f} boxes an image reach {100 * recall(found, known):.1f} % of the objects at IoU 0.5")
        print("  published: 1,536 boxes an image reach 96.7 % on VOC07 test")


if __name__ == "__main__":
    main()
