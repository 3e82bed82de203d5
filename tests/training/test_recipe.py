import math

import pytest

from bench.training import optim, recipe
from bench.training.recipe import SGD, Adam, Constant, Cosine, Exponential, MultiStep, Poly, Recipe, Table


def test_multi_step_drops_exactly_at_its_epochs():
    schedule = MultiStep(at=(8 / 28, 16 / 28, 24 / 28))
    per_epoch = 37
    factors = [schedule.factor(update / (28 * per_epoch)) for update in range(28 * per_epoch)]
    for epoch in range(28):
        expected = 0.1 ** sum(epoch >= drop for drop in (8, 16, 24))
        assert {round(f, 12) for f in factors[epoch * per_epoch : (epoch + 1) * per_epoch]} == {round(expected, 12)}


def test_the_other_schedules_by_hand():
    assert Constant().factor(0.7) == 1
    assert Table(((0.25, 1.0), (1.0, 0.5))).factor(0.25) == 0.5
    assert Table(((0.25, 1.0), (0.9, 0.5))).factor(0.95) == 0.5
    assert Cosine().factor(0.5) == pytest.approx(0.5)
    assert Cosine(end=0.1).factor(1.0) == pytest.approx(0.1)
    assert Poly(power=2).factor(0.5) == 0.25
    assert [Exponential(end=0.01, since=0.5).factor(done) for done in (0, 0.5, 0.75, 1)] == pytest.approx(
        [1, 1, 0.1, 0.01]
    )


def test_warm_up_rises_to_the_rate():
    spec = SGD(lr=0.4, warmup=0.1, schedule=Cosine())
    assert optim.rate(spec, 0.0) == 0
    assert optim.rate(spec, 0.05) == pytest.approx(0.2 * Cosine().factor(0.05))
    assert optim.rate(spec, 0.2) == pytest.approx(0.4 * Cosine().factor(0.2))


@pytest.mark.parametrize(
    "made",
    [
        Recipe(epochs=3, batch=8),
        Recipe(
            epochs=3, batch=8, optimiser={"a": Adam(lr=1e-3, clip=1.0), "b": SGD(lr=0.1, schedule=MultiStep((0.5,)))}
        ),
        Recipe(epochs=1, batch=2, optimiser=SGD(lr=1, schedule=Table(((0.5, 1.0), (1.0, 0.1))))),
        Recipe(epochs=1, batch=2, optimiser=Adam(lr=1, schedule=Exponential(end=0.1, since=0.5))),
    ],
)
def test_recipes_survive_json(made):
    import json

    assert recipe.from_dict(json.loads(json.dumps(made.to_dict()))) == made


def test_a_suite_scales_the_budget_and_nothing_else():
    own = Recipe(epochs=90, batch=256, optimiser={"a": SGD(lr=0.1), "b": Adam(lr=0.2, betas=(0.5, 0.9))})
    scaled = own.scaled(epochs=6, lr=0.5)
    assert (scaled.epochs, scaled.batch) == (6, 256)
    assert scaled.optimisers()["a"] == SGD(lr=0.05)
    assert scaled.optimisers()["b"] == Adam(lr=0.1, betas=(0.5, 0.9))
    assert own.scaled() == own


def test_sweep_sgd_is_torch_sgd_at_every_rate():
    import torch

    torch.manual_seed(0)
    rates, momentum, decay = [0.001, 0.03, 0.5], 0.9, 5e-4
    start = torch.randn(4, 5)
    together = torch.nn.Parameter(start.repeat(3, 1, 1))
    sweep = optim.SweepSGD([together], 1.0, torch.tensor(rates), momentum, decay)
    alone = [torch.nn.Parameter(start.clone()) for _ in rates]
    singles = [
        torch.optim.SGD([p], lr=r, momentum=momentum, weight_decay=decay, nesterov=True)
        for p, r in zip(alone, rates, strict=True)
    ]
    for factor in (1.0, 1.0, 0.1):
        target = torch.randn(4, 5)
        for group in sweep.param_groups:
            group["lr"] = factor
        sweep.zero_grad()
        (together - target).pow(3).sum().backward()
        sweep.step()
        for p, single, rate in zip(alone, singles, rates, strict=True):
            single.param_groups[0]["lr"] = rate * factor
            single.zero_grad()
            (p - target).pow(3).sum().backward()
            single.step()
    for row, p in zip(together, alone, strict=True):
        torch.testing.assert_close(row, p, rtol=1e-5, atol=1e-6)
    assert math.isfinite(float(together.detach().sum()))


def test_where_a_recipe_was_read_is_no_part_of_its_identity():
    assert Recipe(epochs=1, batch=2, source="here").to_dict() == Recipe(epochs=1, batch=2).to_dict()
