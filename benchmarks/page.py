"""How long the page takes to answer one change, asked over HTTP as a browser asks it.

    python benchmarks/page.py [changes]

Starts `bestserve ui`, asks once to warm it, then moves the TTFT objective step by step, each time
with the leaders that the former answer named, as the page does, and reads the events. Medians of
wall and CPU time by who computes until the first number, until the former leaders are shown
at the new figures, and until all are ranked by formulas; simulation of the leaders is not waited
for. Beside it what the ranking alone costs in this process: the rest is the page's own.
"""

from __future__ import annotations

import http.client
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import bestserve as bs

CHANGES = 9
QUESTION = {
    "model": "meta-llama/Llama-3.1-70B",
    "hardware": "h100-sxm",
    "gpus": "16",
    "input-len": "lognormal:1000,1",
    "output-len": "lognormal:250,1",
}
LEADERS = re.compile(r'data-leaders="([^"]*)"')
TICK = os.sysconf("SC_CLK_TCK")


PARTS = ("server", "answers", "runs")
"""Who computes: the server, the workers that answer every change, those that run simulations."""


@dataclass(frozen=True)
class Moment:
    """When something was there after a change: wall [s], CPU by part [s], and bytes until then."""

    wall: float
    cpu: tuple[float, ...]
    sent: int


def cpu_of(pid: int) -> tuple[float, ...]:
    """Return the CPU times of the server and of its workers, quick and nice ones [s]."""
    totals, usual = [0.0, 0.0, 0.0], 0
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    for one in (pid, *map(int, children)):
        try:
            words = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # a worker that did not stop is ended
            continue
        nice = int(words[16])
        usual = nice if one == pid else usual
        part = 0 if one == pid else 2 if nice > usual else 1
        # the server's own, and of workers that it had to end and start again
        ticks = sum(map(int, words[11:15] if one == pid else words[11:13]))
        totals[part] += ticks / TICK
    return tuple(totals)


def asked(port: int, pid: int, ttft: float, keep: str) -> tuple[dict[str, Moment], str]:
    """Ask one question; return when its parts were there, and the leaders it names."""
    words = {**QUESTION, "goodput": f"ttft:{ttft:.0f} tpot:50", "keep": keep}
    began, spent = time.perf_counter(), cpu_of(pid)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET", f"/answers?{urlencode({k: v for k, v in words.items() if v})}")
    answer = connection.getresponse()
    found: dict[str, Moment] = {}
    sent, name, leaders = 0, "", keep

    def reached(what: str) -> None:
        cpu = tuple(now - then for now, then in zip(cpu_of(pid), spent, strict=True))
        found.setdefault(what, Moment(time.perf_counter() - began, cpu, sent))

    for line in iter(answer.readline, b""):
        text = line.decode()
        sent += len(line)
        if text.startswith("event: "):
            name = text[7:].strip()
        elif text.startswith("data: "):
            if name == "found":
                reached(text[6:].strip())
            elif 'hx-target="#brief"' in text:
                reached("number")
            elif match := LEADERS.search(text):
                leaders = match[1].strip()
        elif text == "\n":
            if name == "found" and "first" in found:
                break
            name = ""
    connection.close()
    return found, leaders


def served() -> tuple[subprocess.Popen[bytes], int]:
    """Start the page on a free port and wait until it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "bestserve", "ui", "--no-browser", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    for _ in range(600):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return process, port
        except OSError:
            time.sleep(0.1)
    process.kill()
    raise SystemExit("the page did not start within a minute")


def ranking_cpu() -> float:
    """Return the CPU time of the ranking alone, warm [s]."""
    words = {k.replace("-", "_"): v for k, v in QUESTION.items()}
    lengths = bs.Workload(input_len=words.pop("input_len"), output_len=words.pop("output_len"))
    took = []
    for ttft in (1500, 1480, 1460):
        gpus = int(words["gpus"])
        given = words | {"gpus": gpus}
        problem = bs.Problem(**given, workload=lengths, slo=f"ttft:{ttft} tpot:50")
        began = time.process_time()
        bs.rank(problem, verify=False)
        took.append(time.process_time() - began)
    return min(took[1:])


def main(changes: int) -> None:
    process, port = served()
    try:
        leaders, rows = "", []
        for i in range(changes + 2):
            found, leaders = asked(port, process.pid, 2000 - 25 * i, leaders)
            rows.append(found)
            time.sleep(0.3)  # what still simulates hears that nobody waits
    finally:
        process.terminate()
        process.wait(10)
    alone = ranking_cpu()
    print(f"median of {changes} changes, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    heads = "".join(f"{part:>10}" for part in PARTS)
    print(f"{'until':<28}{'wall':>8}{heads}{'kB':>7}{'x ranking':>11}   [ms of wall, ms of CPU]")
    told = {
        "number": "the first number",
        "glance": "the leaders at new figures",
        "first": "all, by formulas",
    }
    for key, name in told.items():
        seen = [row[key] for row in rows[2:] if key in row]
        wall = statistics.median(m.wall for m in seen)
        cpus = [statistics.median(m.cpu[i] for m in seen) for i in range(len(PARTS))]
        sent = statistics.median(m.sent for m in seen)
        parts = "".join(f"{1e3 * cpu:>10.0f}" for cpu in cpus)
        ratio = (cpus[0] + cpus[1]) / alone
        print(f"{name:<28}{1e3 * wall:>8.0f}{parts}{sent / 1e3:>7.0f}{ratio:>11.2f}")
    print(f"ranking alone by formulas: {1e3 * alone:.0f} ms of CPU")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else CHANGES)
