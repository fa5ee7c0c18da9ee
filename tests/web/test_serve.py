"""Starting and ending the page from Python, and what is said before it starts."""

from __future__ import annotations

import socket
import urllib.request

import pytest

import bestserve as bs
from bestserve.cli import run
from bestserve.errors import InputError
from bestserve.web.serve import listening


def test_a_notebook_s_page_runs_beside_it_and_ends(capsys) -> None:
    problem = bs.Problem(
        model="meta-llama/Llama-3.1-8B",
        hardware="h100-sxm",
        workload=bs.Workload(input_len=500, output_len=100),
        slo="ttft:500 tpot:30",
    )
    page = bs.ui(problem, port=0, browser=False)
    try:
        assert "model=meta-llama/Llama-3.1-8B" in page.url
        with urllib.request.urlopen(page.url, timeout=30) as answer:
            assert 'value="meta-llama/Llama-3.1-8B"' in answer.read().decode()
        assert f'src="{page.url.partition("?")[0]}' in page._repr_html_()
    finally:
        page.stop()
    assert not page.thread.is_alive()
    with pytest.raises(OSError):  # noqa: PT011 -- refused or reset, as the system says it
        urllib.request.urlopen(page.url, timeout=5)


def test_a_port_that_is_taken_is_said(capsys) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port} of 127.0.0.1: .*--port"):
            listening("127.0.0.1", port)
        assert run(["ui", "--no-browser", "--port", str(port)]) == 2
    assert run(["ui", "--port", "70000"]) == 2
    assert run(["ui", "--no-browser", "--model", "x"]) == 2
    assert "hardware" in capsys.readouterr().err
