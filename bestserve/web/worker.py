"""A worker process: takes questions as lines of JSON on stdin, answers with lines on stdout.

    python -m bestserve.web.worker

It answers one question after the other; a line that stops the current one is seen while it
computes. Where stdin ends, so does the worker.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from queue import SimpleQueue
from typing import Any

from bestserve.errors import BestserveError

BUG = "this is a bug of bestserve: the terminal that runs `bestserve ui` shows where"

PAUSE = 0.1
"""Seconds between two words on how far a question is."""


class Stopped(BaseException):
    """The question is not wanted any more."""


class Inbox:
    """Questions as they come in, and up to which one they are stopped."""

    def __init__(self) -> None:
        self.questions: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self.stopped = -1

    def listen(self) -> None:
        """Read stdin to its end, then leave, whatever is being computed."""
        for line in sys.stdin:
            message = json.loads(line)
            if "stop" in message:
                self.stopped = max(self.stopped, int(message["stop"]))
            else:
                self.questions.put(message)
        os._exit(0)


def main() -> None:
    """Answer until stdin ends."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    inbox = Inbox()
    threading.Thread(target=inbox.listen, daemon=True).start()
    from bestserve.web.longer import LONGER
    from bestserve.web.panels import QUESTIONS

    known = {**QUESTIONS, **LONGER}

    def send(**message: Any) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    send(ready=True)
    while True:
        asked = inbox.questions.get()
        number = int(asked["ask"])
        heard = time.monotonic()

        def say(text: str, number: int = number) -> None:
            nonlocal heard
            if inbox.stopped >= number:
                raise Stopped
            if time.monotonic() - heard >= PAUSE:
                heard = time.monotonic()
                send(progress=text)

        try:
            for part in known[asked["name"]](asked["problem"], asked["arguments"], say):
                if inbox.stopped >= number:
                    raise Stopped
                send(part=part)
            send(end="answered")
        except Stopped:
            send(end="stopped")
        except BestserveError as error:
            send(error=str(error), end="refused")
        except Exception:
            traceback.print_exc()
            send(error=BUG, end="failed")


if __name__ == "__main__":
    main()
