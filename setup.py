"""What pyproject.toml cannot say: a wheel carries tables, profiles, pins and contract tests as ``bench/_declared``."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

DECLARED = ("tables", "slurm/profiles", "constraints.txt", "tests/methods/test_contract.py", "tests/toydata.py")


class BuildPy(build_py):
    """Copies what is declared beside the package; not for an editable install, which reads the checkout itself."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, "bench", "_declared")
        shutil.rmtree(target, ignore_errors=True)
        for name in DECLARED:
            source, copy = Path(name), target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, copy, ignore=shutil.ignore_patterns("*.npz"))
            elif source.is_file():
                shutil.copyfile(source, copy)


setup(cmdclass={"build_py": BuildPy})
