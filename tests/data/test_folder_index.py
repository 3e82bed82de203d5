"""Listing a split's folder: what counts as an image, what is refused, and what the cache may remember."""

from __future__ import annotations

import os
import time

import pytest

from bench.data import folder_index
from bench.errors import BenchError


def fill(folder, names, old=True):
    """Empty files of these names; the folder's time is long past, so its listing may be cached."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x" * len(name))
    if old:
        past = time.time() - 100
        os.utime(folder, (past, past))


def names(found):
    return {folder: listing["images"] for folder, listing in found.items()}


def test_a_flat_split(tmp_path):
    fill(tmp_path / "s", ["b.JPEG", "a.png", "notes.txt", "._a.png", "c.Jpg"])
    found = folder_index.index(tmp_path / "s", tmp_path / "cache")
    assert names(found) == {"": ["a.png", "b.JPEG", "c.Jpg"]}
    assert found[""]["sizes"] == [5, 6, 5]


def test_class_folders(tmp_path):
    fill(tmp_path / "s/dog", ["2.jpg", "10.jpg"])
    fill(tmp_path / "s/cat", ["1.jpg"])
    fill(tmp_path / "s/.hidden", ["1.jpg"])
    (tmp_path / "s/README").write_text("not an image")
    assert names(folder_index.index(tmp_path / "s", tmp_path / "cache")) == {
        "cat": ["1.jpg"],
        "dog": ["10.jpg", "2.jpg"],
    }
    assert folder_index.count(tmp_path / "s", tmp_path / "other") == (3, 2)


def test_links_are_followed(tmp_path):
    fill(tmp_path / "elsewhere", ["1.jpg"])
    (tmp_path / "s").mkdir()
    (tmp_path / "s/cat").symlink_to(tmp_path / "elsewhere")
    assert names(folder_index.index(tmp_path / "s", tmp_path / "cache")) == {"cat": ["1.jpg"]}


def test_a_changed_folder_is_listed_again_and_only_that_one(tmp_path, monkeypatch):
    fill(tmp_path / "s/cat", ["1.jpg"])
    fill(tmp_path / "s/dog", ["1.jpg"])
    fill(tmp_path / "s", [])
    folder_index.index(tmp_path / "s", tmp_path / "cache")
    fill(tmp_path / "s/dog", ["2.jpg"], old=False)

    scanned = []
    scan = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scanned.append(path) or scan(path))
    found = folder_index.index(tmp_path / "s", tmp_path / "cache")
    assert names(found) == {"cat": ["1.jpg"], "dog": ["1.jpg", "2.jpg"]}
    assert scanned == [tmp_path / "s/dog"]
    assert folder_index.count(tmp_path / "s", tmp_path / "cache") == (3, 2)


def test_a_folder_that_just_changed_is_not_remembered(tmp_path):
    """Its time may not move when another file is added within the clock's grain."""
    fill(tmp_path / "s", ["1.jpg"], old=False)
    changed = (tmp_path / "s").stat().st_mtime_ns
    folder_index.index(tmp_path / "s", tmp_path / "cache")
    fill(tmp_path / "s", ["2.jpg"], old=False)
    os.utime(tmp_path / "s", ns=(changed, changed))
    assert names(folder_index.index(tmp_path / "s", tmp_path / "cache")) == {"": ["1.jpg", "2.jpg"]}


def test_an_unchanged_index_is_not_written_again(tmp_path):
    fill(tmp_path / "s", ["1.jpg"])
    folder_index.index(tmp_path / "s", tmp_path / "cache")
    (file,) = (tmp_path / "cache/indices").iterdir()
    written = file.stat().st_mtime_ns
    folder_index.index(tmp_path / "s", tmp_path / "cache")
    assert file.stat().st_mtime_ns == written


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"listings": 3'])
def test_a_damaged_index_is_made_anew(tmp_path, damaged):
    fill(tmp_path / "s", ["1.jpg"])
    folder_index.index(tmp_path / "s", tmp_path / "cache")
    (file,) = (tmp_path / "cache/indices").iterdir()
    file.write_text(damaged)
    assert names(folder_index.index(tmp_path / "s", tmp_path / "cache")) == {"": ["1.jpg"]}


def test_an_empty_class_folder_is_named(tmp_path):
    fill(tmp_path / "s/cat", ["1.jpg"])
    fill(tmp_path / "s/cow", [])
    fill(tmp_path / "s/dog", ["readme.txt"])
    with pytest.raises(BenchError, match=r"class folder 'cow' \(and 1 more\) has no images .*s/cow"):
        folder_index.index(tmp_path / "s", tmp_path / "cache")


def test_no_images_at_all(tmp_path):
    fill(tmp_path / "s", ["readme.txt"])
    with pytest.raises(BenchError, match="no images"):
        folder_index.index(tmp_path / "s", tmp_path / "cache")


def test_images_beside_class_folders_are_refused(tmp_path):
    fill(tmp_path / "s", ["stray.jpg"])
    fill(tmp_path / "s/cat", ["1.jpg"])
    with pytest.raises(BenchError, match=r"1 images lie beside 1 class folders, 'stray.jpg'"):
        folder_index.index(tmp_path / "s", tmp_path / "cache")


def test_a_missing_folder_and_a_broken_link_are_one_line(tmp_path):
    with pytest.raises(BenchError, match="No such file"):
        folder_index.index(tmp_path / "nowhere", tmp_path / "cache")
    fill(tmp_path / "s", ["1.jpg"])
    (tmp_path / "s/gone.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(BenchError, match=r"gone\.jpg"):
        folder_index.index(tmp_path / "s", tmp_path / "cache")
