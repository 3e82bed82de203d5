"""Masks come from the flow alone, lie where the pixels went, and what is ignored moves nothing."""

import numpy as np
import pytest
import torch
from toydata import ToyImages

from bench.data.batch import Batch
from bench.data.flow import IGNORED, MOVING, STATIC
from bench.data.loader import collate
from bench.data.scenes_motion import MovingScenes
from bench.errors import BenchError
from bench.methods import motion_segmentation
from bench.methods.base import make
from bench.methods.motion_segmentation import watched
from bench.training.task import Step


def _generator(seed=0):
    return torch.Generator().manual_seed(seed)


def _task(backbone="alexnet-smoke"):
    return make("motion-segmentation", backbone, {}, seed=0)


def _batch(task, masks):
    side = task.backbone.input_side
    frames = torch.randint(0, 256, (len(masks), 3, side, side), dtype=torch.uint8, generator=_generator(1))
    return Batch((frames, masks), torch.arange(len(masks)), torch.full((len(masks),), -1))


def _loss(task, batch):
    ((name, loss),) = task.losses(batch, Step(0, 0, 1), _generator())
    assert name == "main"
    return loss


def _masks(task, *values):
    return torch.stack([torch.full((1, task.grid, task.grid), value, dtype=torch.uint8) for value in values])


@pytest.mark.parametrize(
    ("backbone", "grid"), [("alexnet-smoke", 7), ("alexnet-mini", 14), ("alexnet", 56), ("nin-smoke", 7)]
)
def test_a_logit_for_every_fourth_pixel(backbone, grid):
    task = _task(backbone).eval()
    side = task.backbone.input_side
    assert task.grid == grid
    frames = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    assert task.predict(frames).shape == (2, grid, grid)


def test_the_masks_are_the_flow_s(monkeypatch):
    seen = []

    def flow(clip):
        seen.append(clip)
        return np.full(clip.shape[1:3], MOVING, np.uint8)

    monkeypatch.setattr(motion_segmentation.flow, "motion_mask", flow)
    data = MovingScenes(("train",), 2, 3, 64)
    _, mask = _task().view(data[0], np.random.default_rng(0))
    assert (mask == MOVING).all()
    assert np.array_equal(seen[0], data[0].clip.permute(0, 2, 3, 1).numpy())


def test_frame_and_mask_are_cropped_and_mirrored_alike(monkeypatch):
    # a frame that shows its own mask
    data = ToyImages(1, 64)
    frame = torch.zeros(3, 64, 64, dtype=torch.uint8)
    frame[:, 10:40, 8:30] = 255

    monkeypatch.setattr(motion_segmentation, "watched", lambda sample: (frame, (frame[:1] > 0).byte()))
    task = _task("alexnet-mini")
    for seed in range(20):
        image, mask = task.view(data[0], np.random.default_rng(seed))
        assert (image.shape, mask.shape) == ((3, 56, 56), (1, 14, 14))
        assert (image.dtype, mask.dtype) == (torch.uint8, torch.uint8)
        small = torch.nn.functional.adaptive_avg_pool2d(image[:1].float(), 14) / 255
        certain = (small < 0.1) | (small > 0.9)
        assert torch.equal((small > 0.5)[certain], (mask == MOVING)[certain])


def test_masks_keep_their_three_values():
    task, data = _task(), MovingScenes(("train",), 12, 2, 64)
    values = torch.cat([task.view(data[i], np.random.default_rng(i))[1].flatten() for i in range(12)]).unique()
    assert set(values.tolist()) == {STATIC, MOVING, IGNORED}


def test_the_loss_by_hand():
    task = _task()
    masks = _masks(task, STATIC, MOVING)
    masks[0, 0, :3] = IGNORED
    batch = _batch(task.eval(), masks)
    p = task.predict(batch.views[0]).sigmoid().detach()
    valid = masks[:, 0] != IGNORED
    right = torch.where(masks[:, 0] == MOVING, p, 1 - p)[valid]
    assert float(_loss(task, batch).total.detach()) == pytest.approx(float(-right.log().mean()), rel=1e-5)


def test_what_is_ignored_moves_nothing():
    task = _task().train()
    loss = _loss(task, _batch(task, _masks(task, IGNORED, IGNORED)))
    loss.total.backward()
    assert float(loss.total.detach()) == 0
    assert {name: float(value) for name, value in loss.metrics.items()} == {"explained": 0, "iou": 0}
    assert all(p.grad is None or not p.grad.any() for p in task.parameters())

    masks = _masks(task, STATIC, MOVING)
    masks[:, :, :, :3] = IGNORED
    batch, logits = _batch(task, masks), torch.randn(2, task.grid, task.grid, generator=_generator())
    task.predict = lambda frames: logits
    before = _loss(task, batch)
    logits[:, :, :3] += 10
    after = _loss(task, batch)
    assert torch.equal(before.total, after.total)
    assert {k: float(v) for k, v in before.metrics.items()} == {k: float(v) for k, v in after.metrics.items()}


def test_the_mean_mask_scores_nothing_and_the_truth_all():
    task, data = _task(), ToyImages(60)
    task.prepare(data, _generator())
    assert task.prior.isfinite().all()
    middle = task.grid // 2
    assert task.prior[middle, middle] > task.prior[0, 0], "in the toy data the middle moves"
    batch = Batch(collate([task.view(data[i], np.random.default_rng(i)) for i in range(60)]), torch.arange(60), None)
    task.predict = lambda frames: task.prior.expand(len(frames), -1, -1)
    assert float(_loss(task, batch).metrics["explained"]) == pytest.approx(0, abs=1e-6)
    task.predict = lambda frames: 20.0 * (2 * (batch.views[1][:, 0] == MOVING).float() - 1)
    metrics = _loss(task, batch).metrics
    assert float(metrics["explained"]) > 0.99
    assert float(metrics["iou"]) == 1


def test_data_without_clips_are_refused_in_one_line():
    sample = ToyImages(1)[0]
    for clip in (None, sample.clip[:1]):
        with pytest.raises(BenchError, match="motion segmentation needs clips, and these data have none"):
            watched(sample._replace(clip=clip))


def test_clips_in_which_nothing_moves_are_refused_in_one_line():
    class Still(ToyImages):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return sample._replace(clip=sample.clip[:1].expand(2, -1, -1, -1))

    with pytest.raises(BenchError, match=r"nothing was seen to move in 12 clips.*toy"):
        _task().prepare(Still(12), _generator())


def test_the_picture_shows_frame_mask_and_answer():
    task = _task().eval()
    masks = _masks(task, STATIC, MOVING, IGNORED)
    drawn = task.picture(_batch(task, masks), _generator())
    assert drawn.shape == (3, 3, 3, 28, 28)
    assert drawn.dtype == torch.uint8
    assert [int(drawn[i, 1].float().mean()) for i in range(3)] == [0, 255, 128]
