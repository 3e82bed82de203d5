"""AP of detections: ours against detectron2's ``voc_eval`` (a Python loop a class) and its whole evaluator.

    BENCH_DATA=... python tests/benchmarks/bench_average_precision.py [--images 4952]

On ``voc-fixtures``: a real detector's 253,000 detections on VOC07 test. ``voc_eval`` reads each class's detections from
a text file; that is why ours is timed with and without reading the same files. Its cache of parsed annotations is warm.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import measuring as m
import numpy as np

from bench.data.annotation import Annotation
from bench.data.voc_xml import CLASSES, CORNERS, annotation, rows
from bench.metrics.average_precision import Detections, Ranked, mean_ap, objects, rank_detections, rank_detections_at
from bench.metrics.intervals import bootstrap


def truth(images: int) -> dict[str, Annotation]:
    """The objects of the first images."""
    with gzip.open(m.bench_data() / "voc-fixtures/gt_voc07_test.json.gz") as file:
        found: dict[str, list[Any]] = json.load(file)
    return {
        image: annotation([[CLASSES.index(name), hard, *box] for name, *box, hard in found[image]], 9999, 9999)
        for image in sorted(found)[:images]
    }


def write(place: Path, known: dict[str, Annotation]) -> None:
    """The devkit's annotations and list, and the detections of these images, as ``voc_eval`` reads them."""
    (place / "test.txt").write_text("\n".join(known))
    for image, each in known.items():
        things = "".join(
            f"<object><name>{CLASSES[int(label)]}</name><pose>-</pose><truncated>0</truncated>"
            f"<difficult>{hard:.0f}</difficult><bndbox>"
            + "".join(f"<{side}>{pixel:.0f}</{side}>" for side, pixel in zip(CORNERS, box, strict=True))
            + "</bndbox></object>"
            for label, hard, *box in rows(each)
        )
        (place / f"{image}.xml").write_text(f"<annotation>{things}</annotation>")
    for name in CLASSES:
        with gzip.open(m.bench_data() / f"voc-fixtures/detections/comp4_det_test_{name}.txt.gz", "rt") as file:
            (place / f"{name}.det").write_text("".join(row for row in file if row.split(" ", 1)[0] in known))


def read(place: Path, ids: list[str]) -> Detections:
    """The same files."""
    position = {image: index for index, image in enumerate(ids)}
    image, labels, rest = [], [], []
    for label, name in enumerate(CLASSES):
        rows = [row.split() for row in (place / f"{name}.det").read_text().splitlines()]
        image += [position[row[0]] for row in rows]
        labels += [label] * len(rows)
        rest += [row[1:] for row in rows]
    table = np.array(rest, dtype=np.float64)
    return Detections(np.array(image), np.array(labels), table[:, 0], table[:, 1:] - [1, 1, 0, 0])


def main() -> None:
    """Print the ratios."""
    images = m.arguments(__doc__ or "", images=4952).images
    if not (m.bench_data() / "voc-fixtures").is_dir():
        print("BENCH_DATA has no voc-fixtures")
        return
    from detectron2.evaluation.pascal_voc_evaluation import voc_eval

    known = truth(images)
    ids, wanted = list(known), objects(list(known.values()))
    with m.folder() as place:
        write(place, known)

        def theirs(threshold: float) -> list[float]:
            files = [str(place / name) for name in ("{}.det", "{}.xml", "test.txt")]
            return [voc_eval(*files, name, threshold, True)[2] for name in CLASSES]

        found = read(place, ids)
        m.heading(f"AP of {len(found.image):,} detections in {len(ids):,} images, 20 classes")
        theirs(0.5)  # parses the annotations
        seconds = m.cpu_seconds(lambda: theirs(0.5))

        def ours(given: Detections) -> Ranked:
            ranked = rank_detections(given, wanted, len(CLASSES))
            ranked.ap("11-point")
            return ranked

        quick = min(m.cpu_seconds(lambda: ours(found)) for _ in range(3))
        m.ratio("voc_eval / ours from arrays", seconds, quick, "10")
        m.ratio("voc_eval / ours with reading its files", seconds, m.cpu_seconds(lambda: ours(read(place, ids))))
        tenfold = m.cpu_seconds(lambda: [each.ap("11-point") for each in rank_detections_at(found, wanted, 20)])
        m.ratio("voc_eval at ten thresholds (ten times one) / ours", 10 * seconds, tenfold)
        difference = np.abs(np.array(theirs(0.5)) - ours(found).ap("11-point"))
        print(f"  largest difference of a class: {np.nanmax(difference):.1e}")
        spent = m.cpu_seconds(lambda: bootstrap(mean_ap([ours(found)], "11-point"), len(ids)))
        print(f"  2,000 resamples of the images: {spent:.1f} s")


if __name__ == "__main__":
    main()
