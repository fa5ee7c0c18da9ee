"""Hostile inputs over every surface, counted by surface and outcome.

    python tests/edges/fuzz.py --inputs 1000000 --seed 0

An input ends in an answer or in an error of the tree, whose message is one printable line of at
most 500 characters; everything else is a finding, printed with what reproduces it. Equal seeds give
equal inputs. The suite runs a few thousand (`test_fuzz.py`).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
import tomllib
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

import bestserve as bs
from bestserve.catalog import load_engine, load_hardware, load_model
from bestserve.catalog.calibration import load_calibration
from bestserve.cli.question import question_of
from bestserve.errors import LONGEST_MESSAGE, BestserveError
from bestserve.lowering import lower
from bestserve.lowering.drafter import with_drafter
from bestserve.measure.journal import read_journal
from bestserve.models.step.device import Parallelism
from bestserve.readers.logs import read_log
from bestserve.readers.mappings import parse_mapping
from bestserve.readers.servegen import read_client
from bestserve.readers.startup_log import read_startup_log
from bestserve.readers.traces import read_trace
from bestserve.specs.lengths import parse_law
from bestserve.specs.speculation import SpeculativeConfig
from bestserve.units import parse_change, parse_duration

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "bestserve" / "data"
FIXTURES = ROOT / "tests" / "formats" / "fixtures"

PROBLEM: dict[str, Any] = {
    "model": "meta-llama/Llama-3.1-8B", "hardware": "h100-sxm", "gpus": 4, "engine": "vllm",
    "precision": "bf16", "kv_cache_dtype": "auto", "max_num_seqs": 256, "routing": "random",
    "tensor_parallel_sizes": [1, 2], "layouts": ["collocated"], "price_per_hour": 2.5,
    "workload": {"input_len": "lognormal:1000,0.8", "output_len": {"kind": "fixed", "tokens": 9},
                 "burstiness": 1.0, "prefix_cache_hit": 0.1},
    "slo": {"ttft": 0.5, "tpot": "20ms", "percentile": 90, "joint": False},
}  # fmt: skip
FLEET: dict[str, Any] = {
    "objective": "min_cost",
    "gpus": [{"hardware": "h100-sxm", "count": 2, "price_per_hour": 2.5, "name": "big"}],
    "models": [{"model": "meta-llama/Llama-3.1-8B", "tensor_parallel_sizes": [1], "classes": [
        {"name": "chat", "input_len": 500, "output_len": 50, "slo": "ttft:500 tpot:40", "rate": 5}
    ]}],
}  # fmt: skip
ANSWER = {
    "schema_version": 1, "bestserve_version": "0.1.0", "kind": "ranking",
    "question": {"command": "rank", "problem": PROBLEM, "arguments": {"verify": True}},
}  # fmt: skip
TEXTS = {
    "slo": ["ttft:500 tpot:50 e2el:30s", "ttft:0.5s@p99", "tpot=20ms"],
    "law": ["lognormal:2000,0.8", "uniform(100, 200)", "geometric:300", "512", "fixed:9"],
    "strategy": ["2m-tp4", "3p-tp2+2d-tp4-tokens256", "1m-tp8-dp2-ep16-seqs64"],
    "duration": ["500ms", "0.5 s", "80us", "3min"],
    "change": ["x1.5", "4.8 TB/s", "20ms", "3e9"],
}
NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 2**63, 10**400, -(10**400), 0.0, -0.0, 1e308, 1e-320, float("inf"),
    float("nan"), "", " ", "\x00", "\x1b[2J", "\ud800", "é" * 99, "a" * 9000, "../../etc/passwd",
    "~", "inf", "nan", "1e999", "9" * 5000, "=cmd|' /C calc'!A0", "<script>", "self", [], {}, [[]],
    {"self": 1}, {"": ""}, [None] * 99, {"a": {"b": {"c": {}}}}, [1e308, -1e308], "2026-01-01",
]  # fmt: skip
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}
SECTIONS: list[dict[str, Any]] = [
    {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head"]},
    {"quant_method": "gptq", "bits": 4, "group_size": 128, "dynamic": {"-:.*attn.*": {}}},
    {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True},
    {"quant_method": "compressed-tensors", "ignore": ["re:.*self_attn.*"],
     "config_groups": {"g": {"targets": ["Linear"], "weights": INT4}}},
    {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION",
     "quantized_layers": {"model.layers.0.mlp.up_proj": {"quant_algo": "NVFP4"}}},
    {"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp8_e4m3"}}},
    {"quant_method": "torchao", "quant_type": {"default": {
        "_type": "FqnToConfig", "_data": {"fqn_to_config": {
            "_default": {"_type": "Int4WeightOnlyConfig", "_data": {"group_size": 64}}}}}}},
    {"quant_method": "auto-round", "bits": 4, "group_size": 128, "data_type": "int",
     "extra_config": {"model.layers.0.mlp.up_proj": {"bits": 16}}},
    {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    {"quant_method": "aqlm", "num_codebooks": 2, "nbits_per_codebook": 8, "in_group_size": 8},
]  # fmt: skip
DRAFTS = tuple(
    json.dumps({"method": method, "num_speculative_tokens": 2}).encode()
    for method in ("mtp", "eagle3", "draft_model", "ngram")
)
KEYS = ["self", "values", "text", "kind", "cls", "", "__class__", "model", "\x1b", "k" * 700, "1"]
SPLICES = [
    b"\x00", b"\xff", b"\xef\xbb\xbf", b"\n", b"\r", b" " * 3000, b"." * 40, b"a." * 60, b"[" * 99,
    b"{" * 99, b'"', b"'", b"'''", b'"""', b"#", b",", b"&a *a", b"<<: *a", b"!!python/name:os",
    b"1e999", b"9" * 4500, b"0x" + b"f" * 5000, b"NaN", b"-", b":", b"=", b"2026-13-45", b"\\u0000",
]  # fmt: skip

Take = Callable[[bytes, Path], object]


@dataclass(frozen=True)
class Surface:
    """Something that reads what others wrote: valid inputs, and the reader."""

    name: str
    seeds: tuple[bytes, ...]
    take: Take
    weight: int = 1


def text_of(raw: bytes) -> str:
    return raw.decode("utf-8", errors="surrogateescape")


def written(load: Callable[[Path], object], name: str) -> Take:
    def take(raw: bytes, folder: Path) -> object:
        file = folder / name
        file.write_bytes(raw)
        return load(file)

    return take


def mapping(form: Any, build: Callable[[Any], object]) -> Take:
    def take(raw: bytes, folder: Path) -> object:
        value = parse_mapping(raw.decode("utf-8-sig", errors="replace"), form, "x")
        return build(value) if isinstance(value, dict) else None

    return take


def lowered(values: Mapping[str, Any]) -> object:
    """Return the engine instance that a problem asks about."""
    return lower(bs.Problem(**values)).lane(Parallelism())


def board(file: Path) -> object:
    return lowered({**PROBLEM, "hardware": load_hardware(file)})


def engine_of(file: Path) -> object:
    return lowered({**PROBLEM, "engine": load_engine(file)})


def model_of(file: Path) -> object:
    return lowered({**PROBLEM, "model": load_model(file)})


def client(raw: bytes, folder: Path) -> object:
    trace, dataset = folder / "c-trace.csv", folder / "c-dataset.json"
    head, _, tail = raw.partition(b"\n---\n")
    trace.write_bytes(head)
    dataset.write_bytes(tail)
    return read_client(trace, dataset)


def surfaces() -> list[Surface]:
    import yaml

    def documents(value: Any) -> dict[str, bytes]:
        return {
            "json": json.dumps(value).encode(),
            "toml": tomli_w.dumps(value).encode(),
            "yaml": yaml.safe_dump(value).encode(),
        }

    found = []
    for form, raw in documents(PROBLEM).items():
        found.append(Surface(f"problem {form}", (raw,), mapping(form, lowered), 6))
    for form, raw in documents(FLEET).items():
        found.append(Surface(f"fleet {form}", (raw,), mapping(form, lambda v: bs.Fleet(**v)), 3))
    asked = json.dumps(ANSWER).encode()
    found.append(Surface("answer", (asked,), mapping("json", question_of), 3))
    for name, read in (
        ("slo", bs.SLO), ("law", parse_law), ("strategy", bs.Strategy.parse),
        ("duration", parse_duration), ("change", lambda t: parse_change("x", t, "B/s", 1.0)),
    ):  # fmt: skip
        seeds = tuple(t.encode() for t in TEXTS[name])
        found.append(Surface(name, seeds, lambda raw, _, read=read: read(text_of(raw)), 10))
    hardware = tuple(p.read_bytes() for p in sorted((DATA / "hardware").glob("*.toml"))[:8])
    engine = tuple(p.read_bytes() for p in sorted((DATA / "engines").glob("*.toml")))
    config = tuple(p.read_bytes() for p in sorted((DATA / "models").glob("*/config.json"))[:12])
    quantised = tuple(quantised_configs())
    start = (
        b"Available KV cache memory: 57.5 GiB\nMaximum concurrency for 8,192 tokens per request: 9x"
    )
    found += [
        Surface("quantised config", quantised, written(model_of, "config.json"), 3),
        Surface("draft", DRAFTS, lambda raw, _: drafted(text_of(raw)), 2),
        Surface("start-up log", (start,), written(read_startup_log, "server.log"), 1),
        Surface("hardware record", hardware, written(board, "gpu.toml"), 2),
        Surface("engine record", engine, written(engine_of, "engine.toml"), 2),
        Surface("config.json", config, written(model_of, "config.json"), 2),
        Surface("calibration", (calibration(),), written(load_calibration, "c.toml"), 2),
        Surface("journal", (journal(),), written(read_journal, "j.jsonl"), 2),
        Surface("servegen", (servegen(),), client, 2),
        Surface("trace", traces(), written(read_trace, "t"), 3),
    ]
    logs = tuple(p.read_bytes() for p in sorted(FIXTURES.glob("*/*")) if p.stat().st_size < 40_000)
    return [*found, Surface("log", logs, written(read_log, "log"), 4)]


def quantised_configs() -> Iterator[bytes]:
    """A config of every type that is read, each with another quantisation section."""
    counts = json.loads((ROOT / "tests" / "catalog" / "parameters_by_type.json").read_text())
    for number, known in enumerate(counts.values()):
        section = SECTIONS[number % len(SECTIONS)]
        yield json.dumps({**known["config"], "quantization_config": section}).encode()


def drafted(text: str) -> object:
    config = SpeculativeConfig.parse(text)
    return with_drafter(load_model("deepseek-ai/DeepSeek-V3").architecture, config)


def calibration() -> bytes:
    from bestserve.catalog.calibration import save_calibration
    from bestserve.specs.calibration import Calibration, Constant, Provenance

    own = {"engine.a_step": Constant(value=1e-3, unit="s", kind="measured", source="x", sd=1e-4)}
    record = Calibration(provenance=Provenance(device="H100", date="2026-01-01"), constants=own)
    with tempfile.TemporaryDirectory() as folder:
        return save_calibration(record, Path(folder) / "c.toml").read_bytes()


def journal() -> bytes:
    rows = [{"journal": 1, "device": "H100"}, *({"key": f"gemm {n}", "s": 1e-3} for n in range(3))]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def servegen() -> bytes:
    windows = "0,1.5,1.2,Gamma,0.8,1.0\n600,2.5,1.0,Weibull,1.1,1.0"
    lengths = {"input_tokens": "{100: 0.5, 200: 0.5}", "output_tokens": "{10: 1.0}"}
    return f"{windows}\n---\n{json.dumps({'0': lengths, '21600': lengths})}".encode()


def traces() -> tuple[bytes, ...]:
    table = "arrival,input_len,output_len\n" + "".join(f"{n},{100 + n},{n + 1}\n" for n in range(9))
    azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\n"
    mooncake = {"timestamp": 27, "input_length": 9, "output_length": 5, "hash_ids": [1, 2]}
    return table.encode(), azure.encode(), (json.dumps(mooncake) + "\n").encode() * 3


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value[:6])
    for key, item in inner:
        yield from places(item, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(copy[path[0]], path[1:], new)
    return copy


def mutated(raw: bytes, rng: random.Random) -> bytes:
    """Return a hostile neighbour of a valid input."""
    if rng.random() < 0.6:
        is_json = raw[:1] in (b"{", b"[")
        try:
            value = json.loads(raw) if is_json else tomllib.loads(raw.decode())
        except ValueError:
            return spliced(raw, rng)
        for _ in range(rng.randint(1, 3)):
            path = rng.choice(list(places(value)) or [()])
            if isinstance(value, dict) and rng.random() < 0.2:
                value = {**value, rng.choice(KEYS): rng.choice(NASTY)}
            else:
                value = replaced(value, path, rng.choice(NASTY))
            if not isinstance(value, dict | list):
                break
        try:
            return json.dumps(value).encode() if is_json else tomli_w.dumps(value).encode()
        except (TypeError, ValueError, AttributeError):  # null, half a pair: JSON alone has them
            return spliced(raw, rng)
    return spliced(raw, rng)


def spliced(raw: bytes, rng: random.Random) -> bytes:
    out = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(out))
        match rng.randint(0, 5):
            case 0:
                del out[at:]
            case 1:
                del out[at : at + rng.randint(1, 40)]
            case 2:
                out[at:at] = rng.choice(SPLICES)
            case 3:
                out[at:at] = bytes(rng.choices(range(256), k=rng.randint(1, 6)))
            case 4:
                out[at:at] = out[max(0, at - 30) : at]
            case _:
                token = rng.choice(NASTY)
                out[at : at + rng.randint(0, 12)] = str(token if not isinstance(token, int) or
                    abs(token) < 10**40 else "9" * 400).encode("utf-8", "replace")  # fmt: skip
    return bytes(out)


def outcome(surface: Surface, raw: bytes, folder: Path) -> str:
    """Return "answered", the error's name, or what is wrong, beginning with "FINDING"."""
    try:
        surface.take(raw, folder)
    except BestserveError as error:
        message = str(error)
        if not message.isprintable() or len(message) > LONGEST_MESSAGE:
            return f"FINDING a message of {len(message)} characters: {message[:80]!r}"
        return type(error).__name__
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"FINDING {type(error).__name__} at {Path(last.filename).name}:{last.lineno}"
    return "answered"


def fuzz(inputs: int, seed: int) -> tuple[Counter[tuple[str, str]], dict[tuple[str, str], bytes]]:
    """Return counts by surface and outcome, and the first input of each finding."""
    rng = random.Random(seed)
    found: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], bytes] = {}
    all_surfaces = surfaces()
    weights = [s.weight for s in all_surfaces]
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        for surface in rng.choices(all_surfaces, weights, k=inputs):
            raw = mutated(rng.choice(surface.seeds), rng)
            key = (surface.name, outcome(surface, raw, Path(name)))
            found[key] += 1
            if key[1].startswith("FINDING"):
                examples.setdefault(key, raw)
    return found, examples


def main() -> int:
    parser = argparse.ArgumentParser(description="hostile inputs over every surface")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    start = time.process_time()
    found, examples = fuzz(asked.inputs, asked.seed)
    for (surface, said), count in sorted(found.items()):
        print(f"{surface:16} {said:60} {count:9,}")
    for (surface, said), raw in examples.items():
        print(f"\n{surface}: {said}\n  {raw[:600]!r}")
    used = time.process_time() - start
    print(f"\n{sum(found.values()):,} inputs, {len(examples)} findings, {used:.0f} s, "
          f"seed {asked.seed}")  # fmt: skip
    return 1 if examples else 0


if __name__ == "__main__":
    sys.exit(main())
