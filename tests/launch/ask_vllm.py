"""Run by the Python of an environment with vLLM: parses commands (JSON on stdin), prints verdicts.

One entry a command: "" if every word is a full, current option and the parser takes it, else why
not.
"""

import contextlib
import io
import json
import sys
from importlib import import_module
from importlib.util import find_spec


def parser_for(words):
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    if words[:2] == ["vllm", "serve"]:
        # where it lives: the newest first
        places = ("common.cli_args", "launchers.cli_args", "openai.cli_args")
        found = next(p for p in places if find_spec(f"vllm.entrypoints.{p}"))
        make_arg_parser = import_module(f"vllm.entrypoints.{found}").make_arg_parser
        return make_arg_parser(parser), words[2:]
    assert words[:3] == ["vllm", "bench", "serve"], words
    from vllm.benchmarks.serve import add_cli_args

    add_cli_args(parser)
    return parser, words[3:]


def verdict(words):
    parser, rest = parser_for(words)
    known = parser._option_string_actions
    for word in rest:
        name = word.split("=", 1)[0]
        if word.startswith("--") and name not in known:
            return f"{word} is no option of vLLM"
        if word.startswith("--"):
            text = (known[name].help or "").lower()
            if "deprecated" in text.split(".")[0] or getattr(known[name], "deprecated", False):
                return f"{word} is deprecated"
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parser.parse_args(rest)
    except SystemExit:
        return said.getvalue()[-400:]
    return ""


print(json.dumps([verdict(words) for words in json.load(sys.stdin)]))
