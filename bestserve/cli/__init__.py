"""The command line: the same words and defaults as Python, one module a command, loaded lazily.

Data goes to standard output, talk and progress to standard error. Exit codes: 0 ok, 1 bug,
2 usage, 3 nothing feasible, 4 outside tolerance, 5 bad data.
"""

from __future__ import annotations

import gc
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bestserve._version import __version__
from bestserve.errors import BestserveError, one_line
from bestserve.host.stdout import answers_alone

if TYPE_CHECKING:
    from cyclopts import App, CycloptsError

HELP = "Which LLM serving strategy gives the highest goodput, and how sure are you?"

COMMANDS = {
    "rank": "rank serving strategies by goodput",
    "goodput": "highest rate at which one strategy meets the objectives",
    "headroom": "how much more load a strategy takes",
    "size": "how many GPUs a request rate needs",
    "allocate": "plan a whole fleet, with a certificate",
    "schedule": "plan instances over a day, window by window",
    "predict": "predict TTFT, TPOT and E2EL of one strategy at one rate",
    "curves": "draw TTFT, TPOT, E2EL, throughput and attainment over the load",
    "sensitivity": "say by how much each figure moves the answer",
    "whatif": "change figures and compare, or map which strategy wins where",
    "uncertainty": "say how sure the winner is, and what to measure",
    "explain": "tell why a strategy carries what it carries, or beats another",
    "simulate": "simulate one strategy request by request",
    "ui": "open a local page that answers while you move a slider",
    "report": "write everything about a problem into one HTML page",
    "memory": "say where GPU memory goes and how many requests the cache holds",
    "launch": "print the commands that put a strategy into service",
    "watch": "look at a running server: how far from its goodput, and as predicted or not",
    "validate": "compare predictions with measured logs",
    "calibrate": "fit the few engine and deployment constants to measured logs",
    "measure": "measure a GPU and fit the models' constants to it",
    "catalog": "list and show GPUs, models and engines with their sources",
    "rerun": "repeat the question of a JSON answer",
    "cite": "print the sources of the methods",
}
"""Commands and their one-line help; the module `bestserve.cli.<name>` has the function."""


def overview() -> str:
    """Return the help of the whole: what there is to ask, without loading what answers."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items())
    return (
        f"Usage: bestserve COMMAND\n\n{HELP}\n\nCommands:\n{commands}\n\n"
        "bestserve COMMAND --help says what a command takes; "
        "--version and --install-completion stand alone."
    )


def build() -> App:
    """Return the application with all commands registered but not imported."""
    from cyclopts import App

    app = App(
        name="bestserve",
        help=HELP,
        version=__version__,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for name, summary in COMMANDS.items():
        app.command(f"bestserve.cli.{name}:{name}", name=name, help=summary)
    app.register_install_completion_command(add_to_startup=False)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; never returns, exits with the code of the outcome."""
    # the models' matrices are small: threads of BLAS would only wait for each other
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # what is imported stays: looking through it for cycles again and again takes a tenth of a start
    gc.set_threshold(100_000, 20, 100)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell (>&-)
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # of a terminal that knows no × or ≤
    warnings.simplefilter("ignore")  # of libraries, about what they do inside
    warnings.simplefilter("once", UserWarning)
    warnings.filterwarnings("ignore", "(?s).*joblib will operate in serial mode")
    warnings.showwarning = lambda message, *_: print(f"bestserve: {message}", file=sys.stderr)
    with answers_alone():
        code = run(sys.argv[1:] if arguments is None else list(arguments))
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; expected failures are one line on stderr."""
    if arguments in ([], ["--help"], ["-h"], ["--version"]):
        print(__version__ if arguments == ["--version"] else overview())
        return 0
    from cyclopts import CycloptsError

    try:
        result = build()(arguments, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except CycloptsError as error:
        return complain(misused(error), 2)
    except BestserveError as error:
        from bestserve.cli.wording import in_flags

        return complain(in_flags(str(error), arguments), error.exit_code)
    except BrokenPipeError:
        # The reader has seen enough; what Python still flushes at its end goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        return complain(f"{where}{error.strerror or error}", 5)
    except MemoryError:
        return complain("out of memory: ask for less at once, or on a larger machine", 1)
    except KeyboardInterrupt:
        return complain("interrupted", 130)
    return result if isinstance(result, int) else 0


PROBLEM_FILES = (".toml", ".yaml", ".yml", ".json")
WITHOUT_PROBLEM = ("allocate", "validate", "calibrate", "measure", "catalog", "rerun", "cite")


def misused(error: CycloptsError) -> str:
    """Return what is wrong with a command line, and what to write instead."""
    from cyclopts import MissingArgumentError, UnusedCliTokensError, ValidationError

    from bestserve.cli.flags import NO_VALUE

    command = " ".join(error.command_chain or ())
    see = f"see bestserve {command} --help"
    if isinstance(error, UnusedCliTokensError) and error.unused_tokens:
        first = error.unused_tokens[0]
        if first.lower().endswith(PROBLEM_FILES) and command not in WITHOUT_PROBLEM:
            see = f"a file with the problem goes with --problem {first}"
        return f"{command} does not know what to do with {first[:60]!r}; {see}"
    if isinstance(error, ValidationError) and error.exception_message == NO_VALUE:
        return f"{error.argument.name if error.argument else ''} {NO_VALUE}; {see}"
    missing = isinstance(error, MissingArgumentError) and error.keyword is None
    if missing and error.argument is not None and not error.argument.tokens:
        name = error.argument.name.lstrip("-")
        example = ", for example 2m-tp4 or 3p1d-tp4" if name == "strategy" else ""
        return f"{command} needs a {name}{example}; {see}"
    return " ".join(str(error).split())


def complain(message: str, code: int) -> int:
    """Print one line on standard error and return the exit code."""
    print(f"bestserve: {one_line(message)}", file=sys.stderr)
    return code
