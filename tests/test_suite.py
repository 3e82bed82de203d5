"""What a suite changes of a recipe: its budget, and how its rates rise and fall."""

import pytest

from bench import suite as suites
from bench.errors import BenchError
from bench.training import recipe
from bench.training.recipe import SGD, Adam, Cosine, MultiStep, Recipe

RECIPE = Recipe(epochs=70, batch=256, optimiser=SGD(lr=0.01, schedule=MultiStep((0.5,))))


@pytest.fixture
def suite():
    """A function: a suite with this ``[pretrain]`` and these settings of ``rotation``."""

    def make(pretrain=None, rotation=None):
        data = {"title": "Toy", "description": "For tests.", "backbone": "alexnet-smoke", "roles": {}}
        methods = {"rotation": rotation or {}}
        return suites.parse("toy", {**data, "pretrain": pretrain or {}, "methods": methods}, "toy.toml")

    return make


def test_nothing_stated_is_the_recipe_itself(suite):
    assert suite().recipe("rotation", RECIPE) == RECIPE


def test_the_methods_own_budget_stands_over_the_suites(suite):
    pretrain = {"epochs": 6, "batch": 64, "lr": 4.0, "warmup": 0.3, "schedule": "cosine"}
    shared = suite(pretrain).recipe("jigsaw", RECIPE)
    assert (shared.epochs, shared.batch) == (6, 64)
    assert shared.optimiser == SGD(lr=0.04, schedule=Cosine(), warmup=pytest.approx(0.05))
    own = suite(pretrain, {"epochs": 12, "lr": 0.5, "warmup": 0.0}).recipe("rotation", RECIPE)
    assert (own.epochs, own.batch) == (12, 64)
    assert own.optimiser == SGD(lr=0.02, schedule=Cosine(), warmup=0.0)


def test_every_optimiser_falls_along_the_cosine(suite):
    two = Recipe(epochs=2, batch=4, optimiser={"one": SGD(lr=1.0), "two": Adam(lr=2.0)})
    made = suite({"schedule": "cosine"}).recipe("rotation", two)
    assert {name: optimiser.schedule for name, optimiser in made.optimisers().items()} == {
        "one": Cosine(),
        "two": Cosine(),
    }


def test_drops_of_a_method_stand_over_the_suites_cosine(suite):
    made = suite({"epochs": 10, "schedule": "cosine"}, {"drops": [5, 8]}).recipe("rotation", RECIPE)
    assert made.optimiser.schedule == MultiStep((0.5, 0.8))


def test_a_method_keeps_its_recipes_schedule_where_it_says_so(suite):
    made = suite({"schedule": "cosine"}, {"schedule": "recipe"})
    assert made.recipe("rotation", RECIPE) == RECIPE
    assert made.recipe("jigsaw", RECIPE).optimiser.schedule == Cosine()


def test_a_suite_sets_the_precision_and_where_it_does_not_identities_are_silent_about_it(suite):
    mixed = suite({"precision": "bf16"}).recipe("rotation", RECIPE)
    assert mixed.precision == "bf16" == mixed.to_dict()["precision"]
    assert recipe.from_dict(mixed.to_dict()) == mixed
    assert "precision" not in suite().recipe("rotation", RECIPE).to_dict()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"drops": [5], "schedule": "cosine"}, "drops and schedule both say how the rate falls"),
        ({"drops": [5, 5]}, "not epochs from 1 on, rising"),
        ({"schedule": "linear"}, "methods.rotation.schedule"),
        ({"warmup": -1.0}, "methods.rotation.warmup"),
        ({"precision": "fp16"}, "methods.rotation.precision"),
    ],
)
def test_bad_settings_are_one_clear_line(suite, settings, message):
    with pytest.raises(BenchError, match=message) as caught:
        suite(rotation=settings)
    assert "\n" not in str(caught.value)
