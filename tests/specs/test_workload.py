"""Workloads: exactly one source of lengths, shares that sum to one, typos with a hint."""

from __future__ import annotations

import pytest

from bestserve.errors import InputError
from bestserve.specs.workload import RequestClass, Workload


def test_typo_gets_the_nearest_field():
    with pytest.raises(InputError, match="input_len"):
        Workload(input_length=512, output_len=10)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"input_len": 5},
        {"input_len": 5, "output_len": 5, "trace": "x.csv"},
        {"input_len": 5, "output_len": 5, "burstiness": 0},
        {"input_len": 5, "output_len": 5, "burstiness": float("nan")},
        {"input_len": 5, "output_len": 5, "prefix_cache_hit": 1.0},
        {"input_len": 5, "output_len": 5, "num_prompts": 10},
        {"input_len": 5, "output_len": 5, "max_concurrency": 0},
        {"input_len": 5, "output_len": 5, "image_size": "512x512"},
        {"input_len": 5, "output_len": 5, "images_per_request": 1, "random_prefix_len": 100},
        {"input_len": 5, "output_len": 5, "images_per_request": 1, "conversation": {"turns": 3}},
        {"trace": "x.csv", "images_per_request": 1},
    ],
)
def test_what_makes_no_workload_is_refused(values):
    with pytest.raises(InputError):
        Workload(**values)


def test_shares_must_sum_to_one():
    chat = RequestClass(name="chat", share=0.7, input_len=100, output_len=200)
    with pytest.raises(InputError, match=r"0\.7"):
        Workload(classes=(chat,))


def test_workloads_survive_json():
    workload = Workload(input_len="lognormal(2000, cv=0.8)", output_len=300, burstiness=0.5)
    assert Workload(**workload.model_dump(mode="json", exclude_none=True)) == workload
