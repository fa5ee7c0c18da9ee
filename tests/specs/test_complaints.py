"""A refused value is told in plain words, once, whatever kinds its field may be of."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field

from bestserve.errors import InputError
from bestserve.specs.base import Spec
from bestserve.specs.speculation import SpeculativeConfig

Share = Annotated[float, Field(ge=0, le=1)]


class Inner(Spec):
    size: int = Field(default=1, gt=0)


class Shape(Spec):
    share: Share | tuple[Share, ...] | None = None
    count: int = Field(default=1, ge=1, lt=10)
    name: str = "a"
    on: bool = True
    inner: Inner | None = None
    several: tuple[int, ...] = Field(default=(1,), min_length=1)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"share": 1.7}, "share: must be at most 1 (given: 1.7)"),
        ({"share": (0.5, -1)}, "share.1: must be at least 0 (given: -1)"),
        ({"share": "x"}, "share: must be a number or a list (given: 'x')"),
        ({"count": 1.5}, "count: must be a whole number (given: 1.5)"),
        ({"count": "x"}, "count: must be a whole number (given: 'x')"),
        ({"count": 10}, "count: must be below 10 (given: 10)"),
        ({"name": 3}, "name: must be text (given: 3)"),
        ({"on": "perhaps"}, "on: must be true or false (given: 'perhaps')"),
        ({"inner": {"size": 0}}, "inner: size: must be above 0 (given: 0)"),
        ({"inner": 3}, "inner: must be a table of fields (given: 3)"),
        ({"several": ()}, "several: must have 1 or more entries, has 0"),
        ({"several": 3}, "several: must be a list ([[several]] in TOML) (given: 3)"),
        ({"str": 3}, "'str' is no field of Shape"),
    ],
)
def test_one_complaint_in_plain_words(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError) as refused:
        Shape(**given)
    assert str(refused.value).startswith(f"Shape: {says}")
    assert "Input should" not in str(refused.value)
    assert str(refused.value).count("given") <= 1


def test_what_a_field_needs() -> None:
    with pytest.raises(InputError, match=r"^SpeculativeConfig: acceptance: must be at most 1 \(g"):
        SpeculativeConfig(method="ngram", acceptance=1.7)
