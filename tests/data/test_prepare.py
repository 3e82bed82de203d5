"""Fetching and laying out: over a real server on this machine, with an archive made here."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import io
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from bench.data import prepare as module
from bench.data.prepare import (
    download,
    lay_out_tiny_imagenet,
    lay_out_voc,
    prepare,
    select_tiny_imagenet_50,
    tiny_imagenet_50,
)
from bench.errors import BenchError

CONTENT = bytes(range(256)) * 20_000  # 5 MB: several reads


def md5(content):
    return hashlib.md5(content).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files`` (path -> bytes); breaks off after ``break_after`` bytes; ``ranges`` False: sends the whole."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.break_after, self.ranges, self.length = {}, None, True, True
        self.asked = []

    def handle_error(self, *_):
        """A client that hangs up is part of the tests."""

    def url(self, name):
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        content = server.files.get(self.path[1:])
        asked = self.headers["Range"]
        server.asked.append(asked)
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and server.ranges else 0
        if start >= len(content) > 0 and asked:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if server.length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start:][: server.break_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    made = Server()
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


class TestDownload:
    def test_a_file(self, server, tmp_path):
        server.files["a"] = CONTENT
        seen = []
        download(server.url("a"), tmp_path / "x/a", md5(CONTENT), lambda done, of: seen.append((done, of)))
        assert (tmp_path / "x/a").read_bytes() == CONTENT
        assert seen[-1] == (len(CONTENT), len(CONTENT))
        assert [path.name for path in (tmp_path / "x").iterdir()] == ["a"]

    def test_a_broken_transfer_goes_on_where_it_was(self, server, tmp_path):
        server.files["a"], server.break_after = CONTENT, 2_000_000
        with pytest.raises(BenchError, match=r"broke off: 2\.0 of 5\.1 MB came .*run this again"):
            download(server.url("a"), tmp_path / "a", md5(CONTENT))
        assert not (tmp_path / "a").exists()
        server.break_after = 1_500_000
        with pytest.raises(BenchError, match=r"3\.5 of 5\.1 MB"):
            download(server.url("a"), tmp_path / "a", md5(CONTENT))
        server.break_after = None
        download(server.url("a"), tmp_path / "a", md5(CONTENT))
        assert (tmp_path / "a").read_bytes() == CONTENT
        assert server.asked == [None, "bytes=2000000-", "bytes=3500000-"]

    def test_a_server_without_ranges_sends_the_whole(self, server, tmp_path):
        server.files["a"], server.ranges = CONTENT, False
        (tmp_path / "a.part").write_bytes(b"old")
        download(server.url("a"), tmp_path / "a", md5(CONTENT))
        assert (tmp_path / "a").read_bytes() == CONTENT

    def test_a_server_that_does_not_say_how_much(self, server, tmp_path):
        server.files["a"], server.length = CONTENT, False
        download(server.url("a"), tmp_path / "a", md5(CONTENT))
        assert (tmp_path / "a").read_bytes() == CONTENT

    def test_the_part_was_complete(self, server, tmp_path):
        server.files["a"] = CONTENT
        (tmp_path / "a.part").write_bytes(CONTENT)
        download(server.url("a"), tmp_path / "a", md5(CONTENT))
        assert (tmp_path / "a").read_bytes() == CONTENT

    @pytest.mark.parametrize("part", [None, b"wrong beginning", CONTENT + b"too long"])
    def test_a_wrong_checksum_is_refused_and_removed(self, server, tmp_path, part):
        server.files["a"] = CONTENT
        if part is not None:
            (tmp_path / "a.part").write_bytes(part)
        wanted = md5(b"something else") if part is None else md5(CONTENT)
        with pytest.raises(BenchError, match="not the file expected"):
            download(server.url("a"), tmp_path / "a", wanted)
        assert list(tmp_path.iterdir()) == []

    def test_a_file_brought_by_hand_is_checked_and_kept(self, server, tmp_path):
        (tmp_path / "a").write_bytes(CONTENT)
        download(server.url("a"), tmp_path / "a", md5(CONTENT))
        assert server.asked == []
        (tmp_path / "a").write_bytes(b"wrong")
        with pytest.raises(BenchError, match=r"not the file of .*remove it"):
            download(server.url("a"), tmp_path / "a", md5(CONTENT))
        assert (tmp_path / "a").read_bytes() == b"wrong"

    def test_not_found_is_one_line(self, server, tmp_path):
        with pytest.raises(BenchError, match=r"the server answers 404 Not Found .*by other means to .*/a") as caught:
            download(server.url("a"), tmp_path / "a", md5(CONTENT))
        assert "\n" not in str(caught.value)
        assert list(tmp_path.iterdir()) == []

    def test_no_server_is_one_line(self, server, tmp_path):
        url = server.url("a")
        server.shutdown()
        server.server_close()
        with pytest.raises(BenchError, match="the server cannot be reached"):
            download(url, tmp_path / "a", md5(CONTENT))

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
    def test_a_full_disk_is_one_line(self, server, tmp_path):
        server.files["a"] = CONTENT
        (tmp_path / "a.part").symlink_to("/dev/full")
        with pytest.raises(BenchError, match=r"cannot write: No space left on device .*free some space"):
            download(server.url("a"), tmp_path / "a", md5(CONTENT))
        assert not (tmp_path / "a").exists()


WNIDS = [f"n{i:08d}" for i in (5, 3, 9, 1, 7)]


def archive(images=3, **changes):
    """The layout of tiny-imagenet-200.zip, with five classes, ``images`` a class in train and two in val."""
    top = "tiny-imagenet-200"
    files = {f"{top}/wnids.txt": "\n".join(WNIDS), f"{top}/test/images/test_0.JPEG": "test 0"}
    files[f"{top}/words.txt"] = "".join(f"{w}\tname {w[-1]}, other name\n" for w in [*WNIDS, "n99999999"])
    rows = [(f"val_{i}.JPEG", WNIDS[i % 5]) for i in range(10)]
    files[f"{top}/val/val_annotations.txt"] = "".join(f"{image}\t{w}\t0\t32\t44\t62\n" for image, w in rows)
    files |= {f"{top}/val/images/{image}": f"val {w} {image}" for image, w in rows}
    for w in WNIDS:
        files[f"{top}/train/{w}/{w}_boxes.txt"] = "boxes"
        files |= {f"{top}/train/{w}/images/{w}_{i}.JPEG": f"train {w} {i}" for i in range(images)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for name, text in (files | {f"{top}/{k}": v for k, v in changes.items()}).items():
            if text is not None:
                made.writestr(name, text)
    return buffer.getvalue()


def tree(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "a.zip").write_bytes(archive())
    lay_out_tiny_imagenet(tmp_path / "a.zip", tmp_path / "root/tiny-imagenet")
    return tmp_path / "root/tiny-imagenet"


class TestLayOut:
    def test_every_image_is_in_its_place(self, tiny):
        found = tree(tiny)
        expected = {f"train/{w}/{w}_{i}.JPEG": f"train {w} {i}" for w in WNIDS for i in range(3)}
        expected |= {f"val/{WNIDS[i % 5]}/val_{i}.JPEG": f"val {WNIDS[i % 5]} val_{i}.JPEG" for i in range(10)}
        expected["unlabelled/test_0.JPEG"] = "test 0"
        expected["classes.tsv"] = "".join(f"{w}\tname {w[-1]}\n" for w in sorted(WNIDS))
        assert found == expected
        assert [path.name for path in tiny.parent.iterdir()] == ["tiny-imagenet"]

    @pytest.mark.parametrize(
        "content",
        [
            b"no archive at all",
            archive()[:-200],
            archive(**{"elsewhere/x.JPEG": "?"}),
            archive(**{"val/val_annotations.txt": "val_0.JPEG"}),
            archive(**{"val/images/val_99.JPEG": "no such annotation"}),
            archive(**{"words.txt": None}),
        ],
    )
    def test_another_archive_leaves_nothing(self, tmp_path, content):
        (tmp_path / "a.zip").write_bytes(content)
        with pytest.raises(BenchError, match="not the archive of Tiny ImageNet"):
            lay_out_tiny_imagenet(tmp_path / "a.zip", tmp_path / "tiny")
        assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]

    def test_a_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / "a.zip").write_bytes(archive())
        (tmp_path / "file").write_text("in the way")
        with pytest.raises(BenchError, match="cannot write"):
            lay_out_tiny_imagenet(tmp_path / "a.zip", tmp_path / "file/tiny")


class TestTinyImageNet50:
    def test_the_rule(self):
        assert tiny_imagenet_50([f"n{i:08d}" for i in reversed(range(200))]) == [f"n{i:08d}" for i in range(0, 200, 4)]

    def test_the_first_200_by_number_all_of_val_and_unlabelled(self, tmp_path):
        (tmp_path / "a.zip").write_bytes(archive(images=203))
        lay_out_tiny_imagenet(tmp_path / "a.zip", tmp_path / "tiny")
        select_tiny_imagenet_50(tmp_path / "tiny", tmp_path / "fifty")
        whole, found = tree(tmp_path / "tiny"), tree(tmp_path / "fifty")
        chosen = sorted(WNIDS)[::4]
        assert found.pop("classes.tsv") == "".join(f"{w}\tname {w[-1]}\n" for w in chosen)
        assert {i for i in found if i.startswith("train")} == {
            f"train/{w}/{w}_{i}.JPEG" for w in chosen for i in range(200)
        }
        assert {i for i in found if i.startswith("val")} == {
            i for i in whole if i[:14] in {f"val/{w}/" for w in chosen}
        }
        assert "unlabelled/test_0.JPEG" in found
        assert all(whole[i] == text for i, text in found.items())

    def test_the_real_ones_follow_the_rule(self, bench_data):
        folder = bench_data / "tiny-imagenet-50"
        wnids = sorted(path.name for path in (folder / "train").iterdir())
        assert len(wnids) == 50
        for wnid in wnids:
            train = {path.name for path in (folder / "train" / wnid).iterdir()}
            assert train == {f"{wnid}_{i}.JPEG" for i in range(200)}
            assert len(list((folder / "val" / wnid).iterdir())) == 50
        assert {path.name for path in (folder / "unlabelled").iterdir()} == {f"test_{i}.JPEG" for i in range(10_000)}


class TestPrepare:
    @pytest.fixture(autouse=True)
    def _source(self, server, monkeypatch):
        server.files["tiny.zip"] = archive()
        monkeypatch.setattr(module, "TINY_IMAGENET_URL", server.url("tiny.zip"))
        monkeypatch.setattr(module, "TINY_IMAGENET_MD5", md5(archive()))

    def test_from_nothing_to_a_data_set(self, tmp_path):
        root, cache = tmp_path / "data", tmp_path / "cache"
        assert prepare("tiny-imagenet", root, cache) == f"tiny-imagenet is ready: {root / 'tiny-imagenet'}"
        assert len(tree(root / "tiny-imagenet")) == 27
        assert [path.name for path in root.iterdir()] == ["tiny-imagenet"]
        assert list((cache / "downloads").iterdir()) == []

    def test_a_broken_transfer_leaves_no_data_set(self, server, tmp_path):
        root, cache = tmp_path / "data", tmp_path / "cache"
        server.break_after = 1000
        with pytest.raises(BenchError, match="broke off"):
            prepare("tiny-imagenet", root, cache)
        assert not root.exists()
        server.break_after = None
        prepare("tiny-imagenet", root, cache)
        assert server.asked == [None, "bytes=1000-"]

    def test_what_is_complete_stays(self, server, tmp_path, monkeypatch):
        root, cache = tmp_path / "data", tmp_path / "cache"
        prepare("tiny-imagenet", root, cache)
        splits = {"train": 15, "val": 10, "unlabelled": 1}
        small = module.catalog.DataCard("Tiny", None, "none", splits, 5, "", fetchable=True)
        monkeypatch.setitem(module.catalog._BUILT_IN, "tiny-imagenet", small)
        assert "is complete" in prepare("tiny-imagenet", root, cache)
        assert "is ready" in prepare("tiny-imagenet-50", root, cache)
        assert len(server.asked) == 1
        assert sorted(path.name for path in (root / "tiny-imagenet-50/train").iterdir()) == sorted(WNIDS)[::4]

    def test_what_is_incomplete_is_not_touched(self, server, tmp_path):
        (tmp_path / "tiny-imagenet/train").mkdir(parents=True)
        (tmp_path / "tiny-imagenet/train/mine.txt").write_text("mine")
        with pytest.raises(BenchError, match=r"is there but not complete .*move it away"):
            prepare("tiny-imagenet", tmp_path, tmp_path / "cache")
        assert (tmp_path / "tiny-imagenet/train/mine.txt").read_text() == "mine"
        assert server.asked == []

    def test_imagenet_says_what_to_do(self, tmp_path):
        with pytest.raises(BenchError) as caught:
            prepare("imagenet", tmp_path, tmp_path / "cache")
        line = str(caught.value)
        assert "\n" not in line
        for part in ("accept the terms", "ILSVRC2012_img_train.tar", "ILSVRC2012_devkit_t12.tar.gz", "torchvision"):
            assert part in line
        assert f"{tmp_path / 'imagenet'}/train/<wnid>/*.JPEG" in line

    def test_scenes_need_nothing(self, tmp_path):
        assert prepare("scenes", tmp_path / "data", tmp_path / "cache").startswith("scenes needs no preparation")
        assert list(tmp_path.iterdir()) == []

    def test_an_unknown_name(self, tmp_path):
        with pytest.raises(BenchError, match="unknown data set 'tiny-imagnet': did you mean"):
            prepare("tiny-imagnet", tmp_path, tmp_path / "cache")


def voc_archive(year="VOC2007", changes=()):
    """A devkit's tar: two images with all that belongs to them, in 10,240 bytes."""
    files = {f"VOCdevkit/{year}/ImageSets/Main/train.txt": "000001\n000002\n"}
    for i in ("000001", "000002"):
        files |= {f"VOCdevkit/{year}/JPEGImages/{i}.jpg": i, f"VOCdevkit/{year}/Annotations/{i}.xml": "<annotation/>"}
    return tar_of([*files.items(), *changes])


def tar_of(files, **links):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        folder = tarfile.TarInfo("VOCdevkit")
        folder.type = tarfile.DIRTYPE
        made.addfile(folder)
        for name, text in files:
            member = tarfile.TarInfo(name)
            member.size = len(text)
            made.addfile(member, io.BytesIO(text.encode()))
        for name, target in links.items():
            member = tarfile.TarInfo(f"VOCdevkit/VOC2007/{name}")
            member.type, member.linkname = tarfile.SYMTYPE, target
            made.addfile(member)
    return buffer.getvalue()


class TestVoc:
    @pytest.fixture(autouse=True)
    def _source(self, server, monkeypatch):
        tests = tar_of([("VOCdevkit/VOC2007/ImageSets/Main/test.txt", "000003\n")])
        server.files |= {"voc2007/trainval.tar": voc_archive(), "voc2007/test.tar": tests}
        archives = {f"voc2007/{part}.tar": md5(server.files[f"voc2007/{part}.tar"]) for part in ("trainval", "test")}
        monkeypatch.setattr(module, "VOC_URL", server.url(""))
        monkeypatch.setitem(module.VOC_ARCHIVES, "voc2007", archives)

    def test_all_archives_make_one_devkit(self, tmp_path):
        root, cache = tmp_path / "data", tmp_path / "cache"
        assert prepare("voc2007", root, cache) == f"voc2007 is ready: {root / 'voc2007'}"
        found = tree(root / "voc2007/VOCdevkit/VOC2007")
        assert sorted(found) == [
            "Annotations/000001.xml", "Annotations/000002.xml", "ImageSets/Main/test.txt", "ImageSets/Main/train.txt",
            "JPEGImages/000001.jpg", "JPEGImages/000002.jpg",
        ]  # fmt: skip
        assert found["JPEGImages/000002.jpg"] == "000002"
        assert list((cache / "downloads").iterdir()) == []
        with pytest.raises(BenchError, match="voc2007 is there but not complete"):
            prepare("voc2007", root, cache)

    def test_a_broken_transfer_goes_on_where_it_was(self, server, tmp_path):
        root, cache = tmp_path / "data", tmp_path / "cache"
        server.break_after = 6000
        for _ in range(2):
            with pytest.raises(BenchError, match="broke off"):
                prepare("voc2007", root, cache)
        assert not root.exists()
        server.break_after = None
        prepare("voc2007", root, cache)
        assert server.asked == [None, "bytes=6000-", None, "bytes=6000-"]  # the two archives

    def test_what_is_complete_stays(self, server, tmp_path, monkeypatch):
        prepare("voc2007", tmp_path / "data", tmp_path / "cache")
        known = dataclasses.replace(module.catalog.card("voc2007"), splits={"train": 2}, extra={"trainaug": 9})
        monkeypatch.setitem(module.catalog._BUILT_IN, "voc2007", known)
        assert "voc2007 is complete" in prepare("voc2007", tmp_path / "data", tmp_path / "cache")
        assert len(server.asked) == 2

    @pytest.mark.parametrize(
        "content",
        [
            b"no archive at all",
            voc_archive()[:700],
            voc_archive("VOC2012"),
            voc_archive(changes=[("VOCdevkit/VOC2007/../../../outside", "?")]),
            voc_archive(changes=[("/etc/outside", "?")]),
            voc_archive(changes=[("elsewhere/x.jpg", "?")]),
            tar_of([], link="/etc/passwd"),
            tar_of([("VOCdevkit/VOC2007/link/inside", "?")], link=".."),
        ],
    )
    def test_another_archive_leaves_nothing(self, tmp_path, content):
        (tmp_path / "a.tar").write_bytes(content)
        with pytest.raises(BenchError, match="not an archive of VOC2007"):
            lay_out_voc([tmp_path / "a.tar"], tmp_path / "voc2007", "VOC2007")
        assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]

    def test_voc_mini_says_what_to_do(self, tmp_path):
        with pytest.raises(BenchError, match=r"voc-mini cannot be fetched.*voc-mini/VOCdevkit/VOC2012"):
            prepare("voc-mini", tmp_path, tmp_path / "cache")
