"""Pictures made here: every kind, all that is drawn inside, no text over another, hostile names."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from bestserve.reporting.chart import Chart, Limit, Series, figure_text
from bestserve.reporting.svg import NARROW, WIDE, svg
from bestserve.reporting.svg.frame import SIZE, even, log_ticks, shortened, width_of

EVIL = "<script>x</script>&\"'"
NAME = "3p-tp2-tokens16384+2d-tp4-seqs336"


def chart(kind: str, *series: Series, **more) -> Chart:
    words = {"x_label": "request rate of the service [req/s]", "y_label": "P90 TTFT [ms]"}
    return Chart("key", "Title", "Finding.", kind, series=series, records=(), **(words | more))


RATES = tuple(0.1 * 1.7**i for i in range(12))
CHARTS = {
    "lines": chart(
        "lines",
        *(Series(f"{i}{NAME}", RATES, tuple(30 * (i + 1) * 1.6**j for j in range(12)))
          for i in range(4)),
        limits=(Limit(1000.0, "objective 1000 ms"),),
        log_y=True,
    ),
    "a band from nothing": chart(
        "lines",
        Series("a", RATES, RATES, low=(0.0,) * 12, high=tuple(2 * y for y in RATES)),
        log_y=True,
    ),
    "names on the axis": chart(
        "lines", Series("a", tuple(f"x{10 * i:.2f}" for i in range(20)), tuple(range(1, 21)))
    ),
    "points": chart(
        "points",
        Series("collocated", (20.0, 500.0), (4000.0, 12000.0), ("1m-tp1", EVIL)),
        Series("front", (20.0, 500.0), (4000.0, 12000.0), joined=True),
        limits=(Limit(500.0, "objective 500 ms", "x"),),
    ),
    "points on both logarithms": chart(
        "points", Series("vllm", (1.0, 1e4), (0.0, 2e4), ("a", "b")), log_x=True, log_y=True
    ),
    "bars": chart(
        "bars",
        Series("e", (-1.09, 0.77, 0.0), ("engine.phi", "hardware.memory_bandwidth", EVIL)),
    ),
    "bars with intervals": chart(
        "bars", Series("e", (0.5, 0.1), ("a", "b"), low=(0.3, 0.0), high=(0.8, 0.2))
    ),
    "waterfall": chart(
        "waterfall",
        Series("P90", (20.0, 136.0, -10.0), ("front end", "waiting and sharing steps", "a")),
        limits=(Limit(500.0, "objective 500 ms", "x"),),
    ),
    "parts": chart("parts", Series("m", (16.1, 59.9, 8.5), ("weights", "KV cache", "left free"))),
    "map": chart(
        "map",
        Series(
            "winner",
            tuple(f"x{x}" for x in range(9) for _ in range(5)),
            tuple(f"x{y}" for _ in range(9) for y in range(5)),
            tuple(f"{NAME if (i % 3) else '2m-tp1'}: {i * 1234.5:.3g} req/s" for i in range(45)),
        ),
        categories=("2m-tp1", NAME),
    ),
    "one point": chart("lines", Series("a", (1.0,), (0.0,))),
    "nothing": chart("points"),
}  # fmt: skip


@pytest.fixture(params=CHARTS)
def drawn(request: pytest.FixtureRequest) -> Chart:
    return CHARTS[request.param]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_a_picture_is_whole_and_says_what_it_shows(drawn: Chart, width: int) -> None:
    root = ET.fromstring(svg(drawn, width))
    assert root.attrib["role"] == "img"
    (title,) = (e for e in root if e.tag.endswith("title"))
    assert title.text == "Title. Finding."
    assert root.attrib["aria-labelledby"] == title.attrib["id"]
    assert not re.search(r"nan|inf[^o]", ET.tostring(root, encoding="unicode"))
    assert "style" not in {name for e in root.iter() for name in e.attrib}


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_no_text_overprints_another_or_leaves_its_picture(drawn: Chart, width: int) -> None:
    root = ET.fromstring(svg(drawn, width))
    boxes = []
    parents = {child: parent for parent in root.iter() for child in parent}
    for text in (e for e in root.iter() if e.tag.endswith("text")):
        assert "transform" not in parents[text].attrib
        wide = width_of(text.text or "")
        x, y = float(text.attrib["x"]), float(text.attrib["y"])
        anchor = text.attrib.get("text-anchor", "start")
        left = x - {"start": 0.0, "middle": wide / 2, "end": wide}[anchor]
        boxes.append((text.text, left, left + wide, y - SIZE, y))
        assert left >= -8, text.text
        assert left + wide <= width + 8, text.text
    for i, (a, left, right, top, bottom) in enumerate(boxes):
        for b, low, high, up, down in boxes[i + 1 :]:
            apart = right <= low + 1 or high <= left + 1 or bottom <= up + 2 or down <= top + 2
            assert apart, (a, b)


def test_names_are_escaped() -> None:
    for each in CHARTS.values():
        found = svg(replace(each, title=EVIL, key='"><b>'))
        assert "<script" not in found
        assert "<b>" not in found


def test_ticks_are_round_and_few() -> None:
    assert even(0.0, 4400.0, 6) == [0.0, 1000.0, 2000.0, 3000.0, 4000.0]
    assert len(log_ticks(0.02, 9e6, 6)) <= 6
    assert log_ticks(3.0, 4.0, 6) == [3.0]


def test_long_names_lose_their_middle() -> None:
    assert len(shortened("a" * 100, 100)) < 20
    assert shortened("short", 100) == "short"
    assert figure_text(4378.0) == "4,378"
