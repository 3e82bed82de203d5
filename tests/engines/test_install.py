"""The engines' installer: re-wrapping, hashes, what it says when something lacks. Real wheels, real pip."""

import base64
import csv
import hashlib
import importlib.metadata
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bench.engines import install
from bench.errors import BenchError

ROOT = Path(install.__file__).parents[2]
METADATA = """\
Metadata-Version: 2.1
Name: sal-detectron2
Version: 0.7.2
Requires-Python: >=3.8
License-File: LICENSE
Requires-Dist: Pillow>=7.1
Requires-Dist: numpy<2
Requires-Dist: black
Provides-Extra: dev
Requires-Dist: black==23.3.0; extra == "dev"

Name: this line is prose, not a header
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A wheel with the oddities of the real one: a binary, a stray package, a platform tag, old requirements."""
    wheel = tmp_path / "index" / "sal_detectron2-0.7.2-cp310-none-any.whl"
    wheel.parent.mkdir()
    info = "sal_detectron2-0.7.2.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("detectron2/__init__.py", "__version__ = '0.7.2'\n")
        file.writestr("detectron2/layers/", "")
        file.writestr("detectron2/layers/__init__.py", "")
        file.writestr("detectron2/model_zoo/configs/Base.yaml", "MODEL: {}\n")
        file.writestr("detectron2/_C.cpython-310-x86_64-linux-gnu.so", b"\x7fELF")
        file.writestr("tools/__init__.py", "")
        file.writestr("tools/train_net.py", "")
        file.writestr(f"{info}/LICENSE", "Apache")
        file.writestr(f"{info}/METADATA", METADATA)
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp310-cp310-linux_x86_64\n")
        file.writestr(f"{info}/top_level.txt", "detectron2\ntools\n")
        file.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def offline(source: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pip sees the folder of ``source`` and nothing else."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(source.parent))
    return source


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with nothing in it, not even pip."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python"


def run_bare(python: Path, code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([python, "-c", code], env=environment, check=True, capture_output=True, text=True).stdout


def test_repackaged_wheel_is_pure_and_renamed(source: Path, tmp_path: Path) -> None:
    wheel = install.repackage(source, tmp_path)
    assert wheel.name == "detectron2-0.7.2+sal-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        metadata = file.read("detectron2-0.7.2+sal.dist-info/METADATA").decode()
        tags = file.read("detectron2-0.7.2+sal.dist-info/WHEEL").decode()
    assert {name.split("/")[0] for name in names} == {"detectron2", "detectron2-0.7.2+sal.dist-info"}
    assert "detectron2/model_zoo/configs/Base.yaml" in names
    assert not [name for name in names if name.endswith(".so")]
    assert "detectron2-0.7.2+sal.dist-info/licenses/LICENSE" in names
    assert "Tag: py3-none-any" in tags
    assert "Root-Is-Purelib: true" in tags
    headers, _, body = metadata.partition("\n\n")
    assert "Name: detectron2\nVersion: 0.7.2+sal\n" in headers
    assert "Requires-Dist: numpy\n" in headers
    assert "black" not in headers
    assert "Requires-Dist: Pillow>=7.1" in headers
    assert body == "Name: this line is prose, not a header\n"


def test_record_lists_every_file_with_its_hash_and_size(source: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(install.repackage(source, tmp_path)) as file:
        record = "detectron2-0.7.2+sal.dist-info/RECORD"
        rows = {name: (digest, size) for name, digest, size in csv.reader(io.StringIO(file.read(record).decode()))}
        assert set(rows) == set(file.namelist())
        assert rows.pop(record) == ("", "")
        for name, (digest, size) in rows.items():
            data = file.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert (digest, size) == (f"sha256={expected}", str(len(data)))


def test_pip_installs_the_repackaged_wheel(source: Path, tmp_path: Path) -> None:
    wheel, target = install.repackage(source, tmp_path), tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", target, wheel]
    subprocess.run(pip, check=True)
    (found,) = importlib.metadata.distributions(path=[str(target)])
    assert (found.name, found.version) == ("detectron2", "0.7.2+sal")
    assert sorted(path.name for path in target.iterdir()) == ["detectron2", "detectron2-0.7.2+sal.dist-info"]


def test_download_accepts_only_the_pinned_file(offline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(install, "SHA256", hashlib.sha256(offline.read_bytes()).hexdigest())
        assert install._download(tmp_path / "good").read_bytes() == offline.read_bytes()
    with pytest.raises(BenchError, match=f"not {install.SHA256}.*nothing was installed"):
        install._download(tmp_path / "bad")


def test_what_pip_cannot_find_is_one_line(offline: Path, tmp_path: Path) -> None:
    offline.unlink()
    with pytest.raises(BenchError, match=r"pip download failed: No matching distribution found .*: check the network"):
        install._download(tmp_path)


def test_without_pip_the_error_says_how_to_get_it(bare: Path) -> None:
    code = """
from bench.engines import install
try:
    install.install("detectron2", say=lambda line: None)
except install.BenchError as error:
    print(error)
"""
    assert run_bare(bare, code).strip().endswith("run `python -m ensurepip`")


def test_what_is_missing_names_its_command(bare: Path) -> None:
    code = """
from bench.engines import install
for engine in install.status():
    assert engine.version is None and engine.problem == "it is not installed"
    try:
        install.require(engine.name)
    except install.BenchError as error:
        print(error)
"""
    lines = run_bare(bare, code).splitlines()
    assert lines[0] == "detectron2 is missing: it is not installed: run `bench install detectron2`"
    commands = [line.split("`")[1].removeprefix("bench install ") for line in lines]
    assert commands == ["detectron2", "mmsegmentation", "opencv-contrib"]


def test_unknown_engine() -> None:
    with pytest.raises(BenchError, match="did you mean detectron2"):
        install.install("detectron")
    with pytest.raises(BenchError, match="unknown engine"):
        install.require("caffe")


def test_status_sees_the_engines_of_this_environment_and_imports_none() -> None:
    code = """
import sys
from bench.engines import install
heavy = {"torch", "numpy", "cv2", "detectron2", "mmseg", "mmcv"}
found = {engine.name: engine.version for engine in install.status()}
assert not heavy & {name.partition(".")[0] for name in sys.modules}
import cv2
whole = hasattr(getattr(cv2, "ximgproc", None), "segmentation")
assert (found["opencv-contrib"] is not None) == whole, found
print(found["detectron2"], found["mmsegmentation"])
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert found == [importlib.metadata.version("detectron2"), importlib.metadata.version("onedl-mmsegmentation")]


def test_an_installed_engine_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    install.require("detectron2")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was called"))
    said: list[str] = []
    install.install("detectron2", said.append)
    assert said == [f"detectron2 {importlib.metadata.version('detectron2')} is installed already"]


def test_opencv_overwritten_by_another_build_is_noticed(tmp_path: Path) -> None:
    info = tmp_path / "opencv_contrib_python_headless-5.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: opencv-contrib-python-headless\nVersion: 5.0\n")
    (info / "RECORD").write_text("cv2/__init__.py,,9\ncv2/cv2.abi3.so,,7\n")
    binary = tmp_path / "cv2" / "cv2.abi3.so"
    binary.parent.mkdir()
    distribution = importlib.metadata.PathDistribution(info)
    assert install._overwritten(distribution), "the binary is gone"
    binary.write_bytes(b"contrib")
    assert not install._overwritten(distribution)
    binary.write_bytes(b"main")
    assert install._overwritten(distribution)


def test_extras_are_read_from_our_own_metadata() -> None:
    assert [name for name in install._extra("segmentation") if name.startswith("onedl-mmsegmentation==")]
    detection = install._extra("detection")
    assert [name for name in detection if name.startswith("fvcore==")]
    assert not [name for name in detection if name.startswith(("torch", "onedl", "pytest"))]
