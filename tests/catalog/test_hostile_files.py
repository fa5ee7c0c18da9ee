"""Files from strangers: one line that says what, where and why; never a traceback or a hang."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bestserve.catalog import describe, load_hardware, load_model
from bestserve.catalog.models import LARGEST_CONFIG
from bestserve.errors import DataError
from bestserve.readers.mappings import MAX_BYTES

CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "binary": bytes(range(256)) * 100,
    "utf16": '{"a": 1}'.encode("utf-16"),
    "nul": b'{"model_type": "llama\x00"}',
    "brackets": b"[" * 1_000_000,
    "toml-brackets": b"a = " + b"[" * 500_000,
    "braces": b'{"a":' * 200_000,
    "tables": b"[a" + b".b" * 100_000 + b"]\n",
    "list": b"[1, 2, 3]",
    "number": b"42",
    "string": b'"hello"',
    "null": b"null",
    "cut": b'{"model_type": "llama", "hidden_si',
    "digits": b'{"hidden_size": ' + b"9" * 10_000 + b"}",
    "toml-digits": b"a = " + b"9" * 10_000,
    "nan": b'{"model_type": "llama", "hidden_size": NaN, "num_attention_heads": 2}',
    "types": b'{"model_type": ["llama"], "_bestserve": 3}',
    "about": b'{"model_type": "llama", "_bestserve": [1]}',
    "text-config": b'{"text_config": 3}',
    "figures": b'generation = "hopper"\nfigures = 3\n',
    "figure": b'generation = "hopper"\n[figures]\nsms = "many"\n',
    "wrong-name": b"name = 3\n[figures]\n",
    "aliases": b'extends = "h100-sxm"\naliases = 3\n',
    "deep-figure": b'generation = "hopper"\n[figures.sms.value.value]\nvalue = 1\n',
    "nan-figure": b'extends = "h100-sxm"\n[figures]\n'
    b'sms = { value = nan, unit = "1", kind = "assumed", source = "x" }\n',
    "key": b'extends = "h100-sxm"\n"' + b"k" * 100_000 + b'" = 1\n',
    "too-large": b" " * (LARGEST_CONFIG + 1),
}

LOADERS: dict[str, Callable[[Path], object]] = {
    "config.json": load_model,
    "gpu.toml": load_hardware,
}


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("content", CONTENTS)
def test_one_line_naming_the_file(name: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(CONTENTS[content])
    start = time.process_time()
    with pytest.raises(DataError) as refused:
        LOADERS[name](path)
    assert time.process_time() - start < 5.0
    message = str(refused.value)
    assert name in message
    assert "\n" not in message
    assert len(message) < 500 + len(str(path))
    assert refused.value.exit_code == 5


def test_size_limits_are_stated(tmp_path: Path) -> None:
    path = tmp_path / "gpu.toml"
    path.write_bytes(b"#" * (MAX_BYTES["toml"] + 1))
    with pytest.raises(DataError, match="more than the limit of 1000000; is it the right file"):
        load_hardware(path)


@pytest.mark.parametrize("name", LOADERS)
def test_missing_file_and_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such file; check the path"):
        LOADERS[name](tmp_path / name)
    with pytest.raises(DataError, match=r"no such file"):
        describe(str(tmp_path / name))


def test_a_folder_is_no_hardware_record(tmp_path: Path) -> None:
    folder = tmp_path / "gpu.toml"
    folder.mkdir()
    with pytest.raises(DataError, match="not a regular file"):
        load_hardware(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    pipe = tmp_path / "config.json"
    os.mkfifo(pipe)
    with pytest.raises(DataError, match="not a regular file"):
        load_model(pipe)


def test_a_name_that_is_no_file_name() -> None:
    for name in ("x" * 5000, "a\x00b", "a\nb", "\ud800", "~nobody/x"):
        for load, suffix in ((load_model, ".json"), (load_hardware, ".toml")):
            with pytest.raises(DataError) as refused:
                load(name + suffix)
            assert str(refused.value).isprintable()
            assert len(str(refused.value)) < 500
