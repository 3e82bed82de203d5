"""Reading VOC's annotations, and refusing what is none: one line with file and reason."""

from __future__ import annotations

import re
import time
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from bench.data import scenes
from bench.data.voc_xml import CLASSES, annotation, read_annotation, rows
from bench.errors import BenchError


def thing(name="dog", box=(48, 240, 195, 371), difficult="<difficult>0</difficult>"):
    corners = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    inside = "".join(f"<{side}>{value}</{side}>" for side, value in corners)
    return f"<object><name>{name}</name>{difficult}<bndbox>{inside}</bndbox></object>"


def document(*things, size="<size><width>353</width><height>500</height><depth>3</depth></size>"):
    return f"<annotation><filename>000001.jpg</filename>{size}{''.join(things)}</annotation>"


@pytest.fixture
def read(tmp_path):
    def read_text(text):
        file = tmp_path / "000001.xml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_annotation(file)

    return read_text


def test_the_classes_are_those_of_the_scenes():
    assert CLASSES == scenes.CLASSES
    assert list(CLASSES) == sorted(CLASSES)


def test_an_annotation(read):
    """Edges from 0: the first of 353 columns is 1 in the file, and its left edge is at 0."""
    known = read(document(thing(), thing("person", (1, 1, 353, 500), "<difficult>1</difficult>")))
    assert known.boxes.tolist() == [[47, 239, 195, 371], [0, 0, 353, 500]]
    assert (known.boxes.dtype, known.labels.dtype, known.difficult.dtype) == (np.float32, np.int64, np.bool_)
    assert known.labels.tolist() == [CLASSES.index("dog"), CLASSES.index("person")]
    assert known.difficult.tolist() == [False, True]
    assert (known.width, known.height) == (353, 500)


def test_what_real_files_have_besides(read):
    """Parts with boxes of their own, fractions of a pixel, no difficult mark, spaces, a declaration."""
    part = "<part><name>head</name><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>9999</xmax><ymax>1</ymax></bndbox></part>"
    text = document(thing("\n dog ", (45.7, 2, 100.3, 9), part), thing(box=(7, 7, 7, 7)))
    known = read('<?xml version="1.0" encoding="utf-8"?>\n' + text)
    assert known.boxes == pytest.approx(np.array([[44.7, 1, 100.3, 9], [6, 6, 7, 7]]))
    assert known.difficult.tolist() == [False, False]


def test_no_objects(read):
    known = read(document())
    assert (known.boxes.shape, known.labels.shape) == ((0, 4), (0,))


def test_rows_are_the_inverse(read):
    known = read(document(thing(), thing("cat", (1.5, 2, 3, 4), "<difficult>1</difficult>")))
    again = annotation(rows(known), known.width, known.height)
    assert all(np.array_equal(a, b) for a, b in zip(known, again, strict=True))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (document(thing())[:-5], "malformed XML"),
        ("", "malformed XML: no element found"),
        (b"\xff\xd8\xff\xe0 a picture", "malformed XML"),
        ('<?xml version="1.0" encoding="nonsense"?>' + document(thing()), "malformed XML: unknown encoding: nonsense"),
        ('<?xml version="1.0" encoding="shift_jis"?>' + document(thing()), "malformed XML: multi-byte encodings"),
        (document(thing("dragon")), "unknown class 'dragon'"),
        (document(thing(box=(10, 10, 9, 20))), "the box 10, 10, 9, 20 of a dog is empty"),
        (document(thing(box=(0, 1, 5, 5))), "0, 1, 5, 5 of a dog is outside the image of 353 x 500 pixels"),
        (document(thing(box=(1, 1, 354, 5))), "outside the image of 353 x 500"),
        (document(thing(box=(1, 1, 5, 501))), "outside the image"),
        (document(thing(box=(1, 1, "nan", 5))), "<xmax> is no number: 'nan'"),
        (document(thing(box=(1, 1, "", 5))), "<xmax> is no number: ''"),
        (document(thing(difficult="<difficult>?</difficult>")), "<difficult> is no number"),
        (document(size=""), "<annotation> lacks <size>"),
        (document(size="<size><width>0</width><height>5</height></size>"), "cannot be 0 x 5 pixels"),
        (document(size="<size><width>3.5</width><height>5</height></size>"), "cannot be 3.5 x 5 pixels"),
        (document("<object><name>dog</name></object>"), "<object> lacks <bndbox>"),
        (document("<object><bndbox/></object>"), "<object> lacks <name>"),
    ],
)
def test_refused(read, tmp_path, text, reason):
    with pytest.raises(BenchError, match=re.escape(reason)) as caught:
        read(text)
    assert "\n" not in str(caught.value)
    assert caught.value.where == tmp_path / "000001.xml"


def test_a_missing_file(tmp_path):
    with pytest.raises(BenchError, match=r"cannot read the annotation: No such file .*nowhere\.xml"):
        read_annotation(tmp_path / "nowhere.xml")


class TestEntityAttacks:
    LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))

    def test_a_billion_laughs(self, read):
        text = f'<!DOCTYPE a [<!ENTITY l0 "lol">{self.LAUGHS}]>' + document(thing("&l9;"))
        started = time.process_time()
        with pytest.raises(BenchError, match="it declares a document type"):
            read(text)
        assert time.process_time() - started < 1

    def test_another_encoding_hides_nothing(self, read):
        text = f'<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY l0 "lol">{self.LAUGHS}]>'
        with pytest.raises(BenchError, match="it declares a document type"):
            read((text + document(thing("&l9;"))).encode("utf-16"))

    @pytest.mark.parametrize("kind", ["SYSTEM", "PUBLIC 'x'"])
    def test_an_external_entity(self, read, tmp_path, kind):
        (tmp_path / "secret").write_text("dog")
        declared = f"<!DOCTYPE a [<!ENTITY e {kind} '{(tmp_path / 'secret').as_uri()}'>]>"
        with pytest.raises(BenchError, match="it declares a document type"):
            read(declared + document(thing("&e;")))

    def test_an_entity_that_is_not_declared(self, read):
        with pytest.raises(BenchError, match="malformed XML: undefined entity"):
            read(document(thing("&e;")))


def test_all_real_ones(bench_data):
    """Against the standard library's reader."""
    files = sorted((bench_data / "voc-mini/VOCdevkit/VOC2012/Annotations").glob("*.xml"))[::9]
    for file in files:
        known, tree = read_annotation(file), ElementTree.parse(file)
        expected = [
            [int(element.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
            for element in tree.findall("object")
        ]
        assert [row[2:] for row in rows(known)] == expected
        assert [CLASSES[label] for label in known.labels] == [each.findtext("name") for each in tree.findall("object")]
    assert len(files) == 120
