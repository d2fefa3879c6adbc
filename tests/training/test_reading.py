import dataclasses

import numpy as np
import pytest
import torch

from resnetkit import recipe as recipes
from resnetkit.data import text, tokens
from resnetkit.training import reading
from resnetkit.training.augment import draws
from resnetkit.training.objective import OBJECTIVES
from senses import write_reviews

pytest.importorskip("tokenizers")


@pytest.fixture
def dataset(tmp_path):
    found = text.examples(write_reviews(tmp_path / "reviews.csv", 40))
    splits = np.ones(40, np.int8)
    splits[30:] = 3
    return dataclasses.replace(found, splits=splits)


def recipe_of(**more):
    given = {key.replace("_", ".", 1): value for key, value in more.items()}
    return recipes.replace(recipes.read("", {"data.task": "text"}, OBJECTIVES["text"].defaults), given)


def test_what_is_usual():
    assert (recipe_of().model.variant, recipe_of().train.epochs) == ("words", 5)


@pytest.mark.parametrize("units", ["words", "pieces", "bytes"])
def test_settle(units, dataset):
    recipe = reading.settle(recipe_of(text_units=units, text_vocabulary=400), dataset)
    preprocess = reading.preprocess_of(recipe, dataset)
    assert (recipe.text.tokens, recipe.text.length) == (preprocess.num_tokens, preprocess.length)
    assert {"words": 16, "pieces": 16, "bytes": 64}[units] <= preprocess.length <= 96
    assert {"bytes": 257}.get(units, recipe.text.tokens) == recipe.text.tokens
    again = reading.preprocess_of(reading.settle(recipe, dataset), dataset)
    assert again == preprocess  # a run that is resumed has the same vocabulary
    other = reading.preprocess_of(recipe, dataset.take(np.arange(10)))
    assert (other == preprocess) == (units == "bytes")


def test_units_follow_the_network(dataset):
    assert reading.settle(recipe_of(), dataset).text.units == "words"
    assert reading.settle(recipe_of(model_variant="vdcnn9"), dataset).text.units == "bytes"


def test_inputs(dataset):
    recipe = reading.settle(recipe_of(), dataset)
    found = tokens.encode(dataset.texts, reading.preprocess_of(recipe, dataset))
    still = recipes.replace(recipe, {"text.drop": 0, "text.span": 0})
    assert torch.equal(reading.inputs(found, still, draws(0, 0, 40)), reading.centre(found))
    whole = reading.inputs(found, recipe, draws(0, 0, 40))
    assert whole.dtype == torch.int64 and not torch.equal(whole, reading.centre(found))
    parts = [reading.inputs(found[p], recipe, draws(0, 0, 40, p)) for p in (slice(0, 15), slice(15, 40))]
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize("variant", ["words", "vdcnn9"])
def test_build(variant, dataset):
    recipe = reading.settle(recipe_of(model_variant=variant, model_shortcut="A"), dataset)
    network = reading.build(recipe, 2)
    found = reading.centre(tokens.encode(dataset.texts[:3], reading.preprocess_of(recipe, dataset)))
    assert network.eval()(found).shape == (3, 2) and network.shortcut == "A"
