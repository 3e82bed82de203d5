import json

import pytest
import torch

from bench.backbones.preprocess import PRESETS, Preprocess
from bench.data.colour import rgb_to_lab
from bench.errors import BenchError


@pytest.fixture
def bytes_():
    return torch.randint(0, 256, (2, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_imagenet_by_hand():
    out = Preprocess.named("imagenet")(torch.tensor([0.485, 0.456 + 0.224, 1.0]).view(1, 3, 1, 1))
    assert out.flatten().tolist() == pytest.approx([0, 1, (1 - 0.406) / 0.225])


def test_caffe_by_hand():
    out = Preprocess.named("caffe")(torch.tensor([255, 0, 127], dtype=torch.uint8).view(1, 3, 1, 1))
    assert out.flatten().tolist() == pytest.approx([127 - 104.00699, 0 - 116.66877, 255 - 122.67892], abs=1e-4)


def test_lab_family_centres_lightness_only(bytes_):
    lab = rgb_to_lab(bytes_ / 255)
    centred = lab - torch.tensor([50.0, 0, 0]).view(1, 3, 1, 1)
    assert torch.allclose(Preprocess.named("lab")(bytes_), centred)
    assert torch.allclose(Preprocess.named("l")(bytes_), centred[:, :1])
    assert torch.allclose(Preprocess.named("ab")(bytes_), centred[:, 1:])


def test_sobel_by_hand():
    images = torch.zeros(1, 3, 5, 6)
    images[..., 3:] = 0.225  # an edge from dark (left) to bright (right), the same in each row
    out = Preprocess("sobel", std=[0.225])(images)
    across, down = out[0, :, 2]
    assert across.tolist() == pytest.approx([0, 0, -4, -4, 0, 4])  # the last column sees the zero padding
    assert down.tolist() == pytest.approx([0] * 6)
    turned = Preprocess("sobel", std=[0.225])(images.transpose(2, 3))
    assert turned[0, 1, :, 2].tolist() == pytest.approx([0, 0, -4, -4, 0, 4])


def test_sobel_sees_the_mean_of_normalised_channels():
    images = torch.zeros(1, 3, 3, 3)
    images[:, 0, :, 2] = 1  # red only: 1 / 0.229 / 3 in grey
    grey = Preprocess.named("sobel")(images)[0, 0, 1, 1]
    assert grey.item() == pytest.approx(-4 / 0.229 / 3, rel=1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name, bytes_):
    preprocess = Preprocess.named(name)
    out = preprocess(bytes_)
    assert out.shape == (2, preprocess.channels, 6, 5)
    assert out.dtype == torch.float32
    assert torch.equal(out, preprocess(bytes_.float() / 255))
    assert not preprocess.state_dict()
    plain = json.loads(json.dumps(preprocess.to_dict()))
    again = Preprocess.from_dict(plain)
    assert torch.equal(again(bytes_), out)
    assert again.to_dict() == plain
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(preprocess(bytes_), out)


def test_none_is_the_identity():
    images = torch.rand(1, 3, 2, 2)
    assert torch.equal(Preprocess.named("none")(images), images)


def test_channels_last_stays(bytes_):
    out = Preprocess.named("imagenet")(bytes_.contiguous(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"space": "rgbb"}, "did you mean rgb"),
        ({"space": "l", "mean": [1, 2, 3]}, "takes 1 or 1"),
        ({"std": [0.0]}, "is 0"),
        ({"scale": 0}, "is 0"),
        ({"spaces": "rgb"}, "did you mean space"),
    ],
)
def test_bad_facts(facts, says):
    with pytest.raises(BenchError, match=says):
        Preprocess.from_dict(facts)


def test_unknown_preset():
    with pytest.raises(BenchError, match="did you mean imagenet"):
        Preprocess.named("imagenett")
