"""What goes into a network."""

import pytest
import torch

from autolabel.core.errors import ConfigError
from autolabel.weights.load import seed_of, seeded


@pytest.mark.parametrize(
    ("weights", "seed"), [("random:0", 0), ("random:0017", 17), ("yolo11n", None), ("./random:3", None)]
)
def test_a_seed_is_a_whole_number(weights, seed):
    assert seed_of(weights) == seed


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "²", "9" * 20, "9" * 5000])
def test_what_no_generator_takes_is_no_seed(text):
    with pytest.raises(ConfigError, match=r"^weights must be .* random:SEED "):
        seed_of(f"random:{text}")


def test_the_numbers_of_a_seed_neither_depend_on_the_others_nor_change_them():
    with torch.random.fork_rng(devices=[]):
        found = []
        for outside in (1, 2):
            torch.manual_seed(outside)
            with seeded(10**18 - 1):
                found.append(torch.rand(3).tolist())
            after = torch.rand(1)
            torch.manual_seed(outside)
            assert torch.rand(1) == after
    assert found[0] == found[1]
