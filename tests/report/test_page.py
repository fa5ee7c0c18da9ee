"""The page: complete, escaped, accessible, and opened in a real browser."""

from __future__ import annotations

import itertools
import re
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import bestserve as bs
from bestserve.cli import run
from bestserve.reporting.page import Report, problem_facts, render
from bestserve.reporting.schedule import schedule_charts
from bestserve.reporting.templates import cell, heading

COLLECTOR = """<script>
window.problems = [];
window.addEventListener("error", e => window.problems.push("error: " + e.message), true);
window.addEventListener("unhandledrejection", e => window.problems.push("promise: " + e.reason));
document.addEventListener("securitypolicyviolation",
  e => window.problems.push("policy: " + e.violatedDirective + " " + e.blockedURI));
window.addEventListener("load", () => setTimeout(() => {
  document.documentElement.dataset.problems = window.problems.join(" | ");
  document.documentElement.dataset.loaded =
    performance.getEntriesByType("resource").map(r => r.name).join(" ");
  const pictures = [...document.querySelectorAll(".picture svg")].filter(
    s => s.checkVisibility() && s.getBoundingClientRect().height > 60);
  document.documentElement.dataset.drawn = pictures.length;
  document.documentElement.dataset.ink =
    pictures.length ? getComputedStyle(pictures[0].querySelector("text")).fill : "";
}, 1000));
</script>"""


class Outline(HTMLParser):
    """Elements with their attributes, and the headings' levels."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def of(self, tag):
        return [a for t, a in self.elements if t == tag]


@pytest.fixture(scope="module")
def page(report) -> str:
    return report.html()


@pytest.fixture(scope="module")
def outline(page) -> Outline:
    found = Outline()
    found.feed(re.sub(r"<script.*?</script>", "", page, flags=re.S))
    return found


def test_every_part_is_there(page):
    for part in (
        "answer", "ranking", "pareto", "curves", "why", "sensitivity", "map", "trust",
        "assumptions", "sources",
    ):  # fmt: skip
        assert f'<section id="{part}"' in page
        assert f'href="#{part}"' in page
    assert "@article{williams2009roofline" in page
    assert "of them are assumed" in page
    assert "with probability" in page


def test_landmarks_headings_captions_and_alternatives(report, outline):
    tags = [t for t, _ in outline.elements]
    for landmark in ("header", "nav", "main", "footer"):
        assert tags.count(landmark) == 1
    assert tags.count("h1") == 1
    assert outline.of("html")[0]["lang"] == "en"
    assert tags.count("caption") == tags.count("table") > 10
    levels = [int(t[1]) for t in tags if re.fullmatch("h[1-6]", t)]
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    ids = [a["id"] for _, a in outline.elements if "id" in a]
    pictures = outline.of("svg")
    assert len(pictures) == 2 * len(report.content.charts)  # for screens and for phones
    assert all(a["role"] == "img" and a["aria-labelledby"] in ids for a in pictures)
    assert all("scope" in a for a in outline.of("th"))
    for region in (a for a in outline.of("div") if a.get("class") == "scroll"):
        assert region["tabindex"] == "0"
        assert region["aria-label"]
    assert len(ids) == len(set(ids))
    for name in (a["aria-labelledby"] for _, a in outline.elements if "aria-labelledby" in a):
        assert name in ids


def test_nothing_is_loaded_from_anywhere(page, outline):
    assert "default-src 'none'" in page
    for _, attributes in outline.elements:
        for name in ("src", "srcset", "data", "action", "poster"):
            assert name not in attributes
        assert not (attributes.get("href") or "#").startswith(("http", "//"))
    assert not outline.of("link")


def test_strings_of_strangers_are_escaped(report, problem):
    evil = "<script>alert('x')</script>"
    content = replace(
        report.content,
        problem=problem.replaced(model=evil),
        assumed=evil,
        left_out=(evil, '" onmouseover="alert(1)'),
    )
    page = render(content)
    assert evil not in page
    assert page.count("&lt;script&gt;alert(") == 3
    assert 'onmouseover="alert' not in page


def test_an_allocation_is_shown_when_given(report):
    shown = render(replace(report.content, allocation=report.content.ranking))
    assert '<section id="allocation"' in shown
    assert '<section id="allocation"' not in render(report.content)


def test_a_schedule_is_shown_with_its_pictures_when_given(report, problem):
    rows = [{"start": "00:00", "request_rate": "1"}, {"start": "00:05", "request_rate": "2"}]
    found = bs.schedule(problem, rows, strategy=report.content.ranking.best.strategy)
    charts = (*report.content.charts, *schedule_charts(found))
    shown = render(replace(report.content, schedule=found, charts=charts))
    for key in ("load", "instances", "cost", "attainment"):
        assert f'id="figure-{key}"' in shown
    assert "of the least possible" in shown
    assert '<section id="schedule"' not in render(report.content)


def test_notebooks_get_the_page_in_a_frame(report):
    frame = report._repr_html_()
    assert frame.startswith("<iframe")
    assert "<script" not in frame


def test_problem_is_told_in_words(problem):
    facts = dict(problem_facts(problem))
    assert facts["GPUs"] == "2 × h100-sxm"
    assert facts["Objectives"] == "P90 TTFT ≤ 1000 ms, P90 TPOT ≤ 30 ms"
    assert facts["Prompts"] == "lognormal, mean 1,000 tokens, coefficient of variation 0.8"
    burst = problem.replaced(
        workload=bs.Workload(input_len=5, output_len=5, burstiness=0.5, prefix_cache_hit=0.3)
    )
    facts = dict(problem_facts(burst))
    assert facts["Arrivals"] == "gamma, burstiness 0.5"
    assert facts["Prefix cache"] == "30% of prompt tokens"
    assert facts["Answers"] == "5 tokens"


def test_cells_and_headings_are_for_people():
    values = (None, True, 3, 12345, 3.35e12, 0.12345, "text")
    assert [cell(v) for v in values] == ["", "yes", "3", "12,345", "3.35 T", "0.1235", "text"]
    assert heading("ttft_ms") == "TTFT [ms]"
    assert heading("goodput_per_gpu") == "Per GPU [req/s]"


def test_missing_libraries_are_named_with_their_install_line(report, monkeypatch):
    import sys

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "jinja2", None)
        with pytest.raises(ImportError, match="jinja2") as error:
            report.html()
        assert "pip install 'bestserve[report]'" in str(error.value)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        with pytest.raises(ImportError, match="matplotlib"):
            report.figures("unused")


def test_command_writes_page_and_figures(tmp_path, capsys):
    output, figures = tmp_path / "report.html", tmp_path / "figures"
    code = run(
        ["report", "--model", "meta-llama/Llama-3.1-8B", "--hardware", "h100-sxm", "--gpus", "1",
         "--max-num-batched-tokens", "4096", "--quick", "--output", str(output),
         "--figures", str(figures)]
    )  # fmt: skip
    assert code == 0
    assert capsys.readouterr().out.strip() == str(output)
    assert "left out on request" in output.read_text(encoding="utf-8")
    assert (figures / "tornado.svg").is_file()


def opened(chromium: str, page: str, folder: Path, *options: str) -> str:
    """Return the document after its scripts ran."""
    path = folder / "report.html"
    path.write_text(page.replace("<head>", "<head>" + COLLECTOR, 1), encoding="utf-8")
    done = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000",
            f"--user-data-dir={folder / 'profile'}", *options, path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_draws_every_figure_without_errors(chromium, report, page, tmp_path, scheme):
    setting = {"light": "1", "dark": "0"}[scheme]
    found = opened(
        chromium, page, tmp_path, "--dump-dom", f"--blink-settings=preferredColorScheme={setting}"
    )
    assert re.search(r'data-problems=""', found), re.findall(r'data-problems="[^"]*"', found)
    assert re.search(r'data-loaded=""', found)
    assert f'data-drawn="{len(report.content.charts)}"' in found
    ink = {"light": "rgb(27, 31, 36)", "dark": "rgb(230, 233, 238)"}[scheme]
    assert f'data-ink="{ink}"' in found


@pytest.mark.browser
def test_a_broken_script_would_be_noticed(chromium, tmp_path):
    page = "<html><head></head><body><script>nothing.there()</script></body></html>"
    found = opened(chromium, page, tmp_path, "--dump-dom")
    assert "nothing is not defined" in found


@pytest.mark.browser
def test_the_page_prints(chromium, page, tmp_path):
    target = tmp_path / "report.pdf"
    opened(chromium, page, tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={target}")
    pdf = target.read_bytes()
    assert pdf[:5] == b"%PDF-"
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert 3 <= pages <= 14


def test_a_report_is_its_content(report):
    assert Report(report.content) == report
