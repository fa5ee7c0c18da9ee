"""The simulator against Ciw, an independent discrete-event simulator, on what both can express."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bestserve.models.step.step_time import StepTime
from bestserve.models.system import Arrivals, Collocated, Disaggregated, Lane, Lengths, Transfer
from bestserve.simulator import Requests, simulate

ciw = pytest.importorskip("ciw", reason="the outside referee is a test dependency")

ONE = np.ones(1)
ANY = Lengths(inputs=ONE, input_weights=ONE, outputs=ONE, output_weights=ONE)
N = 4000
ROUNDING = 1e-6


def serial_lane(**options: object) -> Lane:
    return Lane(
        step=StepTime(w=0, c=1e-3, e=0, a=0, k=0),
        policy="prefill_priority",
        max_num_seqs=1,
        max_num_batched_tokens=1 << 20,
        **options,  # type: ignore[arg-type]
    )


def ciw_waits(network: object, customers: int, node: int = 1) -> np.ndarray:
    """Waits in order of arrival at a node [s]."""
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(customers, method="Finish")
    records = [r for r in simulation.get_all_records() if r.node == node]
    records.sort(key=lambda r: r.arrival_date)
    return np.array([r.waiting_time for r in records])


def inputs(seed: int, rate: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    gaps = rng.gamma(0.5, 2.0, N) / rate
    return gaps, np.maximum(np.rint(rng.lognormal(6.5, 0.8, N)), 1).astype(int)


@pytest.mark.parametrize("servers", [1, 3])
def test_same_requests_same_waits(servers: int) -> None:
    """GI/G/1, and three queues served in turn: the very same gaps and services, wait by wait."""
    gaps, prompts = inputs(1, 0.7 * servers)
    times = np.cumsum(gaps)
    system = Collocated(
        lane=serial_lane(),
        replicas=servers,
        lengths=ANY,
        arrivals=Arrivals(kind="trace", times=times),
        routing="round_robin",
    )
    given = Requests(input_len=prompts, output_len=np.ones(N, dtype=int))
    result = simulate(system, given=given)
    for server in range(servers):
        mine = np.arange(N) % servers == server
        arrivals = np.diff(times[mine], prepend=times[0])
        network = ciw.create_network(
            arrival_distributions=[ciw.dists.Sequential([*arrivals.tolist(), math.inf])],
            service_distributions=[ciw.dists.Sequential((1e-3 * prompts[mine]).tolist())],
            number_of_servers=[1],
        )
        waits = ciw_waits(network, int(mine.sum()))
        np.testing.assert_allclose(result.queue_time[mine], waits, rtol=0, atol=ROUNDING)


def test_same_requests_through_a_tandem() -> None:
    """Two single servers with a fixed delay between them: same waits at both."""
    gaps, prompts = inputs(2, 0.6)
    times = np.cumsum(gaps)
    rng = np.random.default_rng(3)
    steps = rng.integers(1, 1200, N)
    decode = Lane(step=StepTime(w=1e-3, c=0, e=0, a=0, k=0), max_num_seqs=1)
    delay = 0.125
    system = Disaggregated(
        prefill=serial_lane(),
        prefill_replicas=1,
        decode=decode,
        decode_replicas=1,
        lengths=ANY,
        transfer=Transfer(latency=delay),
        arrivals=Arrivals(kind="trace", times=times),
    )
    result = simulate(system, given=Requests(input_len=prompts, output_len=steps + 1))
    network = ciw.create_network(
        arrival_distributions=[
            ciw.dists.Sequential([0.0, *np.diff(times).tolist(), math.inf]),
            None,
            None,
        ],
        service_distributions=[
            ciw.dists.Sequential((1e-3 * prompts).tolist()),
            ciw.dists.Deterministic(delay),
            ciw.dists.Sequential((1e-3 * steps).tolist()),
        ],
        number_of_servers=[1, math.inf, 1],
        routing=[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]],
    )
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(N, method="Finish")
    records = [r for r in simulation.get_all_records() if r.node == 3]
    records.sort(key=lambda r: r.arrival_date)
    ends = np.array([r.exit_date for r in records])
    assert len(ends) == N
    np.testing.assert_allclose(result.last_token, ends, rtol=0, atol=ROUNDING)


def test_closed_loop_throughput() -> None:
    """One server, C clients that think: cycle by cycle as in Ciw's closed network.

    With one class of deterministic think and service times the closed loop is periodic; its
    throughput is min(C/(Z + S), 1/S) (asymptotic bounds, tight here; Lazowska et al. 1984, §5.2).
    """
    for clients, think in ((3, 9.0), (20, 9.0)):
        system = Collocated(
            lane=serial_lane(),
            replicas=1,
            lengths=ANY,
            arrivals=Arrivals(kind="closed", concurrency=clients, num_prompts=2000, think=think),
        )
        given = Requests(input_len=np.full(2000, 1000), output_len=np.ones(2000, dtype=int))
        result = simulate(system, given=given)
        want = min(clients / (think + 1.0), 1.0)
        assert result.throughput == pytest.approx(want, rel=0.02)
