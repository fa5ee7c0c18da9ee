"""Length laws of data sets: what benchmark clients send and what models answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestserve.models.system import Collocated
from bestserve.readers.tidy import TidyRow
from bestserve.validation import length_tables
from bestserve.validation.datasets import EARLY, cut_atoms, early_or_full_atoms, table_lengths
from bestserve.validation.deployment import Deployment, deployment_of
from bestserve.validation.protocol import Protocol, protocol_of
from bestserve.validation.replay import predict_row, prepare, system_of
from bestserve.validation.sources import suite_of

Make = Callable[..., TidyRow]


def deployed(row: TidyRow) -> Deployment:
    return deployment_of(row, suite_of(row))


def driven(row: TidyRow) -> Protocol:
    return protocol_of(row, suite_of(row))


ROOT = Path(__file__).resolve().parent.parent.parent
LAWS = ("OPEN_ORCA", "MIXTRAL_MIX", "SHAREGPT_BASE")


@given(st.floats(EARLY, 2000.0), st.sampled_from([2048.0, 32784.0]))
def test_answers_end_early_or_run_to_the_limit(mean: float, asked: float) -> None:
    lengths, weights = early_or_full_atoms(mean, asked)
    assert weights.sum() == pytest.approx(1.0)
    assert weights.min() >= 0
    assert float(lengths @ weights) == pytest.approx(mean, rel=0.02)
    assert lengths.max() == asked


def test_one_share_of_long_answers_explains_two_limits() -> None:
    """A limit of 128 or of 2,048 tokens does not change how many prompts get a short answer."""
    share = 0.3
    early, _ = early_or_full_atoms(EARLY, 1e6)
    mean_early = float(early[:-1].mean())
    for asked in (128.0, 2048.0):
        mean = share * asked + (1 - share) * min(mean_early, asked)
        found = early_or_full_atoms(mean, asked)[1][-1]
        assert found == pytest.approx(share, abs=0.03)


def test_requests_that_never_came_ran_to_the_limit(make: Make) -> None:
    row = make(
        ignore_eos=False, output_len_asked=32784.0, output_len_mean=36.0, num_prompts=500,
        completed=380, input_len_mean=2048.0,
    )  # fmt: skip
    found = driven(row)
    law = found.lengths
    assert law.output_weights[law.outputs == 32784.0].sum() == pytest.approx(0.24)
    early = law.outputs < 32784.0
    kept = law.output_weights[early] / law.output_weights[early].sum()
    assert float(law.outputs[early] @ kept) == pytest.approx(36.0, rel=0.02)
    assert found.longest_counted < 32784.0


@pytest.mark.parametrize("name", LAWS)
def test_tables_keep_the_means_they_are_scaled_to(name: str) -> None:
    law = table_lengths(getattr(length_tables, name), 222.0, 290.0)
    assert law.joint
    assert law.input_weights.sum() == pytest.approx(1.0)
    assert float(law.inputs @ law.input_weights) == pytest.approx(222.0, rel=0.01)
    # An empty answer is one token, the end.
    empty = float(law.output_weights[law.outputs == 1.0].sum())
    assert float(law.outputs @ law.output_weights) == pytest.approx(290.0 + empty, rel=0.01)


def test_a_base_model_answers_nothing_to_long_prompts() -> None:
    """38 % of the answers of the log behind the table were empty, most of them to long prompts."""
    law = table_lengths(length_tables.SHAREGPT_BASE, 215.0, 120.0)
    empty = law.outputs == 1.0
    assert empty.mean() == pytest.approx(0.38, abs=0.03)
    assert law.inputs[empty].mean() > 2 * law.inputs[~empty].mean()


def test_data_sets_are_recognised(make: Make) -> None:
    mlperf: dict[str, Any] = {
        "source": "MLPerf Inference v4.1 closed/X", "request_rate": 10.0, "concurrency": None,
    }  # fmt: skip
    orca = make(dataset_or_lengths="OpenOrca 24576 samples, Server scenario", **mlperf)
    mixed = make(dataset_or_lengths="OpenOrca+GSM8K+MBXP 15000 samples", **mlperf)
    laws = [driven(row).lengths for row in (orca, mixed)]
    assert all(law.joint for law in laws)
    assert not np.array_equal(laws[0].outputs, laws[1].outputs)
    base = make(
        source="dstack Llama-3.1-405B H100 vs MI300X", dataset_or_lengths="ShareGPT 1000 prompts",
        request_rate=16.0, concurrency=None, num_prompts=1000,
    )  # fmt: skip
    assert driven(base).blanks_count_zero
    assert not driven(orca).blanks_count_zero


@given(st.floats(20.0, 500.0))
def test_cut_answers_keep_their_mean_and_limit(mean: float) -> None:
    lengths, weights = cut_atoms(mean, 0.75, 512.0)
    assert lengths.max() <= 512.0
    assert float(lengths @ weights) == pytest.approx(mean, rel=0.01)
    assert cut_atoms(600.0, 0.75, 512.0)[0].tolist() == [512.0]


ACCELMARK: dict[str, Any] = {
    "source": "AccelMark (verified)", "request_rate": 5.0, "concurrency": None, "num_prompts": 300,
    "input_len_mean": None, "output_len_mean": None, "in_process": True,
}  # fmt: skip


def test_accelmark_sends_its_own_prompts(make: Make) -> None:
    short = make(
        dataset_or_lengths="sharegpt_standard_v1 (suite C; max_out 512)", output_len_max=512.0,
        **{**ACCELMARK, "input_len_mean": 236.33},
    )  # fmt: skip
    law = driven(short).lengths
    assert float(law.inputs @ law.input_weights) == pytest.approx(236.33)
    assert law.inputs.max() < 600  # the longest of its prompts has 592 tokens
    assert law.outputs.max() == 512.0
    long = make(
        dataset_or_lengths="sharegpt_longctx_v1 (suite D)", input_len_p50=28650.0,
        output_len_p50=256.0, output_len_max=256.0, **ACCELMARK,
    )  # fmt: skip
    found = driven(long)
    assert found.requests == 100
    assert 0.9 * 28650 < found.lengths.inputs.min() < found.lengths.inputs.max() < 30208


@pytest.mark.parametrize(
    ("version", "precision", "sequences", "graphs"),
    [
        ("0.7.3", "W4A16", 256, True),
        ("0.20.1+transformers-5.8.1", "BF16", 128, True),
        ("0.20.1+transformers-5.8.1", "W4A16", 128, False),
    ],
)
def test_engines_in_the_clients_process(
    make: Make, version: str, precision: str, sequences: int, graphs: bool
) -> None:
    row = make(
        engine_version=version, precision=precision, gpu="NVIDIA A100-SXM4-80GB",
        dataset_or_lengths="sharegpt_standard_v1", output_len_max=512.0, **ACCELMARK,
    )  # fmt: skip
    engine = deployed(row).engine_constants
    assert engine.cuda_graphs == graphs
    system = system_of(prepare(row))
    assert isinstance(system, Collocated)
    assert system.lane.max_num_seqs == sequences
    # V1 keeps prompts, which every run of the suite sends again.
    hits = system.lengths.cached
    assert (hits.size > 0) == (sequences == 128)
    assert np.all(hits % system.lane.kv_block == 0)
    assert hits.size == 0 or 0.8 < hits.sum() / system.lengths.inputs.sum() < 1.0


def test_stated_limits_outlive_the_defaults_of_small_boards(make: Make) -> None:
    row = make(gpu="NVIDIA A100-SXM4-40GB", max_num_seqs=17, max_num_batched_tokens=5000)
    system = system_of(prepare(row))
    assert isinstance(system, Collocated)
    assert (system.lane.max_num_seqs, system.lane.max_num_batched_tokens) == (17, 5000)
    plain = system_of(prepare(make(gpu="NVIDIA A100-SXM4-40GB")))
    assert isinstance(plain, Collocated)
    assert plain.lane.max_num_batched_tokens == 2048


def test_tables_are_what_the_script_writes(
    shared: Path,
    script: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written_by = script("validation/length_tables.py")
    monkeypatch.setattr(written_by, "SHARED", shared)
    monkeypatch.setattr(written_by, "TARGET", tmp_path / "tables.py")
    written_by.main()
    written: dict[str, Any] = {}
    exec((tmp_path / "tables.py").read_text(encoding="utf-8"), written)
    for name in LAWS:
        assert written[name] == getattr(length_tables, name)
    assert written["ACCELMARK_PROMPTS"] == length_tables.ACCELMARK_PROMPTS


def test_clients_in_step_are_named_where_nobody_says_how_lengths_spread(make: Make) -> None:
    """Mean lengths alone: 16 clients with one length send in bursts, five times the TTFT."""
    bare = make(dataset_or_lengths=None, input_len_asked=None, output_len_asked=None)
    said = [n for n in prepare(bare).notes if "in step" in n]
    assert len(said) == 1
    assert "--input-len-std" in said[0]
    spread = dataclasses.replace(bare, input_len_std=300.0, output_len_std=60.0)
    stated = dataclasses.replace(bare, dataset_or_lengths="random 1024/128")
    for row in (spread, stated, dataclasses.replace(bare, concurrency=1)):
        assert not any("in step" in n for n in prepare(row).notes)
    one, other = (predict_row(prepare(r))[0]["ttft_p50_ms"] for r in (bare, spread))
    assert one > 1.5 * other
