"""Figures are checked, never converted; hypothetical GPUs say what was changed."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bestserve.catalog import load_hardware
from bestserve.errors import BestserveError, DataError, InputError
from bestserve.specs.figure import Figure
from bestserve.specs.hardware import UNITS, Hardware, hardware_from_record


def figure(name: str, value: float = 8.0, **changes: Any) -> dict[str, Any]:
    return {"value": value, "unit": UNITS[name], "kind": "assumed", "source": "a test", **changes}


def record(**figures: Any) -> dict[str, Any]:
    needed = (
        "flops_bf16",
        "memory_bytes",
        "memory_bandwidth",
        "sms",
        "link_bandwidth",
        "gpus_per_node",
    )
    return {
        "name": "mine",
        "generation": "hopper",
        "figures": {**{name: figure(name) for name in needed}, **figures},
    }


def build(data: dict[str, Any]) -> Hardware:
    return hardware_from_record(data, origin="a test")


def test_minimal_record_gets_visible_stand_ins() -> None:
    made = build(record())
    assert made.device().flops_bf16 == 8.0
    assert made.flops_fp8.value == 0.0
    for name in ("flops_fp8", "network_bandwidth", "link_latency", "launch_time"):
        assert made.figures()[name].kind == "assumed"
        assert "not stated" in made.figures()[name].source


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
@pytest.mark.parametrize("name", ["memory_bandwidth", "flops_fp8", "power"])
def test_impossible_numbers_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"figures.{name}: value"):
        build(record(**{name: figure(name, value)}))


@pytest.mark.parametrize("name", ["memory_bandwidth", "sms", "gpus_per_node"])
def test_zero_is_refused_where_it_makes_no_gpu(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} must be positive"):
        build(record(**{name: figure(name, 0.0)}))


@pytest.mark.parametrize("name", ["sms", "gpus_per_node"])
def test_counts_are_whole(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} must be a whole number"):
        build(record(**{name: figure(name, 7.5)}))


@pytest.mark.parametrize(
    ("name", "unit"), [("memory_bandwidth", "GB/s"), ("flops_bf16", "TFLOP/s"), ("power", "kW")]
)
def test_units_are_checked_never_converted(name: str, unit: str) -> None:
    with pytest.raises(InputError, match=r"units are checked, never converted"):
        build(record(**{name: figure(name, unit=unit)}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": "fast"}, "value"),
        ({"value": True}, "value"),
        ({"value": None}, "value"),
        ({"kind": "guessed"}, "kind"),
        ({"source": ""}, "source"),
        ({"source": 3}, "source"),
        ({"source": ["a"]}, "source"),
        ({"colour": "green"}, "colour"),
    ],
)
def test_malformed_figures_name_the_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"figures.sms.*{message}"):
        build(record(sms=figure("sms", **change)))


@pytest.mark.parametrize("table", [1.0, "x", [1], True])
def test_a_bare_number_is_no_figure(table: object) -> None:
    with pytest.raises(InputError, match=r"figures.sms must be a table"):
        build(record(sms=table))


def test_unknown_figure_names_the_nearest() -> None:
    data = record()
    data["figures"]["memory_bandwith"] = figure("memory_bandwidth")
    with pytest.raises(InputError, match=r"memory_bandwith .*nearest: memory_bandwidth"):
        build(data)


def test_missing_figure_and_generation_say_what_is_needed() -> None:
    data = record()
    del data["figures"]["memory_bytes"]
    with pytest.raises(InputError, match=r"figures.memory_bytes is missing.*extends"):
        build(data)
    with pytest.raises(InputError, match=r"generation 'kepler' is not one of volta"):
        build({**record(), "generation": "kepler"})


@pytest.mark.parametrize("table", ["sources", "figures", "changes"])
def test_tables_must_be_tables(table: str) -> None:
    with pytest.raises(InputError, match=f"{table} must be a table"):
        build({**record(), table: [1, 2]})


def test_a_price_needs_a_date() -> None:
    with pytest.raises(InputError, match="price_per_hour needs a date"):
        build(record(price_per_hour=figure("price_per_hour", 2.5)))
    dated = build(record(price_per_hour=figure("price_per_hour", 2.5, date="2025-10")))
    assert dated.price_per_hour is not None
    assert dated.price_per_hour.value == 2.5


def test_sources_are_looked_up_by_short_name() -> None:
    data = {**record(sms=figure("sms", source="paper")), "sources": {"paper": "A Paper, 2024"}}
    assert build(data).sms.source == "A Paper, 2024"


def test_changes_by_value_and_by_factor() -> None:
    h100 = load_hardware("h100-sxm")
    changed = h100.with_changes({"memory_bandwidth": "x1.5", "sms": 144, "power": "900"})
    assert changed.memory_bandwidth.value == pytest.approx(1.5 * h100.memory_bandwidth.value)
    assert changed.device().sms == 144
    assert changed.memory_bandwidth.kind == "assumed"
    assert "x1.5" in changed.memory_bandwidth.source
    assert h100.memory_bandwidth.source in changed.memory_bandwidth.source
    assert changed.name == "h100-sxm[memory_bandwidth=x1.5,sms=144,power=900]"
    assert changed.flops_bf16 == h100.flops_bf16
    assert h100.with_changes({}) is h100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"memory_bandwith": 1.0}, "nearest: memory_bandwidth"),
        ({"sms": "x-2"}, "finite number"),
        ({"sms": math.nan}, "finite number"),
        ({"sms": "many"}, "a factor such as x1.5"),
        ({"sms": 0}, "must be positive"),
        ({"sms": "x1.01"}, "whole number"),
        ({"price_per_hour": "x2"}, "cannot be scaled"),
    ],
)
def test_impossible_changes_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_hardware("h100-sxm").with_changes(change)


def test_a_figure_is_frozen() -> None:
    made = Figure(value=1.0, unit="s", kind="assumed", source="a test")
    with pytest.raises(Exception, match="frozen"):
        made.value = 2.0  # type: ignore[misc]


def test_hardware_survives_json() -> None:
    h100 = load_hardware("h100-sxm")
    assert Hardware.model_validate_json(h100.model_dump_json()) == h100


def test_extending_record(tmp_path: Any) -> None:
    path = tmp_path / "h100-fat.toml"
    path.write_text(
        'extends = "h100-sxm"\ntitle = "H100 with more memory"\n'
        '[changes]\nmemory_bandwidth = "x1.2"\n[figures]\n'
        'memory_bytes = { value = 160e9, unit = "B", kind = "assumed", source = "what if" }\n'
    )
    fat, h100 = load_hardware(str(path)), load_hardware("h100-sxm")
    assert fat.name == "h100-fat"
    assert fat.memory_bytes.value == 160e9
    assert fat.memory_bandwidth.value == pytest.approx(1.2 * h100.memory_bandwidth.value)
    assert fat.flops_bf16 == h100.flops_bf16
    assert fat.aliases == ()
    again = tmp_path / "fatter.toml"
    again.write_text('extends = "./h100-fat.toml"\n[changes]\nmemory_bytes = "x2"\n')
    assert load_hardware(again).memory_bytes.value == 320e9


@pytest.mark.parametrize(
    ("extends", "message"),
    [('"no-such-gpu"', "unknown hardware"), ('"h100"', "ambiguous"), ("3", "name or path")],
)
def test_extending_something_unusable(tmp_path: Any, extends: str, message: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(f"extends = {extends}\n")
    with pytest.raises(BestserveError, match=message):
        load_hardware(path)


def test_records_that_extend_each_other_end(tmp_path: Any) -> None:
    path = tmp_path / "loop.toml"
    path.write_text('extends = "./loop.toml"\n')
    with pytest.raises(BestserveError, match="extend each other"):
        load_hardware(path)


def test_changes_may_carry_their_unit():
    h100 = load_hardware("h100-sxm")
    assert h100.with_changes({"memory_bandwidth": "4.8 TB/s"}).memory_bandwidth.value == 4.8e12
    assert h100.with_changes({"memory_bytes": "80GiB"}).memory_bytes.value == 80 * 2**30
    with pytest.raises(InputError, match="write a value in B/s"):
        h100.with_changes({"memory_bandwidth": "4.8 TFLOP/s"})


def test_a_loose_figure_is_told_where_it_belongs(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text('extends = "h100-sxm"\nmemory_bandwidth = 3e12\n')
    with pytest.raises(DataError, match=r"belongs into a table.*\[changes\]"):
        load_hardware(file)
