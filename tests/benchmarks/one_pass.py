"""Heads on five stages in one pass, against five runs of one stage each (which stop at their stage), one rate.

python tests/benchmarks/one_pass.py [--images 256] [--classes 50]
"""

from __future__ import annotations

import measuring as m

TARGETS = {"packed": 2.7, "JPEG": 3.2}


def main() -> None:
    """Print the ratio from the packed store and from JPEG."""
    asked = m.arguments(__doc__, images=256, classes=50)
    m.heading("five heads in one pass, AlexNet at 224 px")
    with m.folder() as place:
        files = m.photographs(place / "drawn", asked.images)
        jpegs = m.labelled(place, files)
        backbone = m.alexnet()
        for source, data in (("packed", m.packed_too(place, jpegs)), ("JPEG", jpegs)):
            m.epoch(backbone, [0.01], m.few(data), asked.classes)
            together = m.epoch(backbone, [0.01], data, asked.classes)
            alone = [m.epoch(m.UpTo(backbone, s), [0.01], data, asked.classes) for s in backbone.stages]
            target = f">= {TARGETS[source]}" if asked.classes == 50 else ""
            m.ratio(f"five runs / one pass, {source}, {asked.classes} classes", sum(alone), together, target)


if __name__ == "__main__":
    main()
