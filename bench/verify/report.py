"""What was verified as Markdown, for a pull request. Nothing that a submission says is Markdown or HTML there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.report.render import markdown
from bench.verify import Verdict

_MOST = 200
"""Lines of each list."""
_LEVELS = {
    "refuted": "something in it is wrong",
    "unproven": "its evidence is not here",
    "consistent": "every number is what its evidence gives",
    "checked": "and the evidence agrees with the labels",
}


def report(verdicts: Sequence[Verdict], against: str | None = None) -> str:
    """The verdicts: how many of each, then every problem, then every alarm."""
    bad = [v for v in verdicts if v.problems]
    title = f"{len(bad)} of {len(verdicts)} files do not verify" if bad else f"All {len(verdicts)} files verify"
    count = Counter(v.level for v in verdicts)
    lines = [f"## {title}", ""]
    lines += ["| level | files | |", "|---|---:|---|"]
    lines += [f"| {level} | {count[level]} | {text} |" for level, text in _LEVELS.items() if count[level]]
    if against:
        lines += ["", f"Compared with {_code(against)}."]
    lines += _list("Problems", [(v.path, problem) for v in bad for problem in v.problems])
    lines += _list("To be looked at", [(v.path, alarm) for v in verdicts for alarm in v.alarms])
    return "\n".join(lines) + "\n"


def _list(heading: str, found: list[tuple[str, str]]) -> list[str]:
    if not found:
        return []
    lines = [f"- {_code(path)}: {_code(text)}" for path, text in found[:_MOST]]
    more = [f"- and {len(found) - _MOST} more"] if len(found) > _MOST else []
    return ["", f"### {heading}", "", *lines, *more]


def _code(text: str) -> str:
    """Text that stays text; within ``<code>`` nobody is mentioned either."""
    return f"<code>{markdown(text)}</code>"
