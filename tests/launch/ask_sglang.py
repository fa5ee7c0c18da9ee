"""Run by a Python with SGLang and the routers: parses commands (JSON on stdin), prints verdicts.

One entry a command: "" if every word is a full, current option and the parser takes it, else why
not.
"""

import argparse
import contextlib
import io
import json
import sys

from sglang.srt.server_args import ServerArgs


def parser_for(words):
    parser = argparse.ArgumentParser()
    if words[0] == "vllm-router":
        from vllm_router.router_args import RouterArgs

        RouterArgs.add_cli_args(parser)
        return parser, words[1:]
    if words[2:3] == ["sglang_router.launch_router"]:
        from sglang_router.router_args import RouterArgs

        RouterArgs.add_cli_args(parser)
        return parser, words[3:]
    assert words[:2] == ["sglang", "serve"], words
    ServerArgs.add_cli_args(parser)
    return parser, words[2:]


def verdict(words):
    parser, rest = parser_for(words)
    known = parser._option_string_actions
    for word in rest:
        if word.startswith("--") and word not in known:
            return f"{word} is no option of SGLang"
        if word.startswith("--") and "Deprecated" in type(known[word]).__name__:
            return f"{word} is deprecated"
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parser.parse_args(rest)
    except SystemExit:
        return said.getvalue()[-400:]
    return ""


print(json.dumps([verdict(words) for words in json.load(sys.stdin)]))
