"""One epoch of the probe, five stages at five rates, against the bare frozen forward over the same images.

python tests/benchmarks/probe_epoch.py [--images 256] [--classes 50]
"""

from __future__ import annotations

import measuring as m
import torch


def main() -> None:
    """Print the ratio, the probe's images from the packed store."""
    asked = m.arguments(__doc__, images=256, classes=50)
    m.heading("a probe's epoch, AlexNet at 224 px, five rates")
    with m.folder() as place:
        data = m.packed_too(place, m.labelled(place, m.photographs(place / "drawn", asked.images)))
        backbone = m.alexnet()
        m.epoch(backbone, m.RATES, m.few(data), asked.classes)
        probe = m.epoch(backbone, m.RATES, data, asked.classes)
        batches = m.crops(data).split(256)

        @torch.no_grad()
        def forward() -> None:
            for batch in batches:
                backbone(batch)

        bare = m.cpu_seconds(forward)
        target = "<= 1.3" if asked.classes == 50 else ""
        m.ratio(f"probe's epoch / frozen forward, {asked.classes} classes", probe, bare, target)


if __name__ == "__main__":
    main()
