"""Messages on the command line name what was set there."""

from __future__ import annotations

import pytest

from bestserve.cli import run
from bestserve.cli.wording import in_flags

QUESTION = (
    "--model meta-llama/Llama-3.1-8B --hardware h100-sxm --gpus 2 --input-len 500 "
    "--output-len 50 --goodput ttft:1000 tpot:50"
)


@pytest.mark.parametrize(
    ("asked", "begins"),
    [
        ("predict 1m --request-rate 1 --kv-cache-dtype fp3", "--kv-cache-dtype: "),
        ("predict 1m --request-rate 1 --max-num-seqs 0", "--max-num-seqs: "),
        ("predict 1m --request-rate 1 --burstiness 0", "--burstiness: "),
        ("predict 1m --request-rate 1 --percentile 101", "--percentile: "),
        ("predict 1m --request-rate -1", "--request-rate = -1.0 must be"),
        ("predict 1m", "request_rate is needed (--request-rate): "),
        (
            'predict 1m-spec1 --request-rate 1 --speculative-config {"method":"ngram"} '
            "--acceptance 1.7",
            "--acceptance: must be at most 1 (given: 1.7)",
        ),
        (
            "predict 1m --request-rate 1 --speculative-config {",
            "--speculative-config: must be a JSON object",
        ),
        (
            "predict 1m --request-rate 1 --images-per-request 1 --image-size 512",
            "--image-size: must be width x height in pixels, e.g. 1024x768 (given: '512')",
        ),
        ("rank --compare-routing", "--compare-routing requires one or more values; see best"),
        ("memory 1m --max-model-len 0", "--max-model-len = 0 must be"),
        ("predict 9m --request-rate 1", "9m-tp1 needs 9 GPUs, the problem has 2; raise --gpus"),
    ],
)
def test_flags_that_were_given(asked: str, begins: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(f"{asked} {QUESTION}".split()) in (2, 3)
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"bestserve: {begins}")


def test_what_a_file_sets_keeps_its_name() -> None:
    said = "Problem: max_num_seqs: must be at least 1 (given: 0)"
    assert in_flags(said, ["rank", "--problem", "chat.toml"]) == said
    assert (
        in_flags("cannot read 'max_num_seqs'", ["--max-num-seqs"]) == "cannot read 'max_num_seqs'"
    )


def test_catalogue_has_units(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["catalog", "hardware", "--format", "md"]) == 0
    shown = capsys.readouterr().out
    assert run(["catalog", "models", "--format", "md"]) == 0
    shown += capsys.readouterr().out
    for heading in ("memory [GB]", "memory bandwidth [TB/s]", "parameters [B]"):
        assert heading in shown
    assert run(["catalog", "hardware", "--format", "csv"]) == 0
    assert "memory_bytes" in capsys.readouterr().out
