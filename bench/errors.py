"""The one exception that a user is meant to read."""

from __future__ import annotations

from pathlib import Path


class BenchError(Exception):
    """Something the user can mend: what is wrong, where, and how to mend it.

    The command line prints it as one line and exits with status 2.
    """

    def __init__(self, what: str, *, where: str | Path | None = None, mend: str | None = None) -> None:
        self.what, self.where, self.mend = what, where, mend
        super().__init__(what)

    def __str__(self) -> str:
        line = self.what
        if self.where is not None:
            line += f" ({self.where})"
        if self.mend is not None:
            line += f": {self.mend}"
        return printable(line)


def printable(text: str) -> str:
    """One line of printable characters, whatever was submitted: no escape code reaches a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def did_you_mean(kind: str, name: str, known: list[str]) -> BenchError:
    """The error for a name that is not known, with the nearest known ones.

    ``kind`` is the singular noun ("method"), ``known`` the names that would have done.
    """
    import difflib

    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        mend = "did you mean " + " or ".join(near) + "?"
    else:
        mend = f"known: {', '.join(sorted(known))}" if known else f"there is no {kind} yet"
    return BenchError(f"unknown {kind} {name!r}", mend=mend)
