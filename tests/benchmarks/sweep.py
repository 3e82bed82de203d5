"""Five stages at five learning rates in one pass, against 25 runs of one stage at one rate each.

python tests/benchmarks/sweep.py [--images 128] [--classes 50]
"""

from __future__ import annotations

import measuring as m


def main() -> None:
    """Print the ratio, from the packed store."""
    asked = m.arguments(__doc__, images=128, classes=50)
    m.heading("five stages x five rates, AlexNet at 224 px")
    with m.folder() as place:
        data = m.packed_too(place, m.labelled(place, m.photographs(place / "drawn", asked.images)))
        backbone = m.alexnet()
        m.epoch(backbone, m.RATES, m.few(data), asked.classes)
        together = m.epoch(backbone, m.RATES, data, asked.classes)
        alone = [
            m.epoch(m.UpTo(backbone, stage), [rate], data, asked.classes)
            for stage in backbone.stages
            for rate in m.RATES
        ]
        target = ">= 12" if asked.classes == 50 else ""
        m.ratio(f"25 runs / one pass, packed, {asked.classes} classes", sum(alone), together, target)


if __name__ == "__main__":
    main()
