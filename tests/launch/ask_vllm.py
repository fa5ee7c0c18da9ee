"""Run by the Python of an environment with vLLM: parses commands (JSON on stdin), prints verdicts.

One entry a command: "" if every word is a full, current option and the parser takes it, else why
not.
"""

import contextlib
import io
import json
import sys


def parser_for(words):
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    if words[:2] == ["vllm", "serve"]:
        try:
            from vllm.entrypoints.launchers.cli_args import make_arg_parser
        except ImportError:  # before 0.3x
            from vllm.entrypoints.openai.cli_args import make_arg_parser

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
