"""A method of which only weights and results are here: ``bench add`` put them in place, and nothing trains them."""

from __future__ import annotations

from bench.errors import BenchError
from bench.methods.base import Backbone, PretextTask


class Added(PretextTask):
    """Stands for every method of ``tables/added``; see :mod:`bench.submission`."""

    recipe = None

    def __init__(self, backbone: Backbone) -> None:
        raise BenchError(
            "this method has no code here, and the weights of this seed are not in place",
            mend="put them there: bench add METHOD.toml, with the same --runs",
        )
