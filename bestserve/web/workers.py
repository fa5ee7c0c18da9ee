"""The processes that compute, so that one slow question does not keep others waiting."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

LONGEST_LINE = 64 * 2**20
"""Characters of one message of a worker: a page's part, with pictures."""
PATIENCE = 2.0
"""Seconds that a worker has to stop before it is ended and another one started."""
KEPT = 64 * 2**20
"""Characters of finished answers that are kept."""

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """One question: its name in `bestserve.web.panels`, the problem as plain data, arguments."""

    name: str
    problem: Mapping[str, Any] | None
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The same for the same question."""
        return json.dumps([self.name, self.problem, dict(self.arguments)], sort_keys=True)


class Answers:
    """Finished answers, the latest used last; the oldest give way."""

    def __init__(self, limit: int = KEPT) -> None:
        self.limit, self.size = limit, 0
        self.found: OrderedDict[str, list[Message]] = OrderedDict()

    def get(self, key: str) -> list[Message] | None:
        """Return the messages of an answer, if they are known."""
        if key in self.found:
            self.found.move_to_end(key)
        return self.found.get(key)

    def put(self, key: str, messages: list[Message]) -> None:
        """Keep the messages of an answer."""
        if key not in self.found:
            self.found[key] = messages
            self.size += _size(messages)
        while self.size > self.limit:
            _, gone = self.found.popitem(last=False)
            self.size -= _size(gone)


def _size(messages: list[Message]) -> int:
    return sum(len(str(text)) for message in messages for text in message.values())


class Worker:
    """One process and the pipe to it."""

    def __init__(self, nice: int) -> None:
        self.nice = nice
        self.process: asyncio.subprocess.Process | None = None
        self.asked = 0

    async def start(self) -> None:
        """Start the process; it answers once it has loaded what it needs."""
        command = [sys.executable, "-m", "bestserve.web.worker"]
        self.process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LONGEST_LINE,
            env=_environment(),
        )
        _renice(self.process.pid, self.nice)

    async def send(self, message: Message) -> None:
        """Send one line."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write((json.dumps(message) + "\n").encode())
        await self.process.stdin.drain()

    async def receive(self) -> Message:
        """Return the next line; an end where the process is gone."""
        assert self.process is not None
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            said = "the process that computed this is gone; ask again"
            return {"error": said, "end": "gone"}
        message: Message = json.loads(line)
        return message

    async def end(self) -> None:
        """End the process."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


class Crew:
    """A few workers that take questions first come, first served.

    size : processes; limit : seconds after which a question is given up; nice : of the processes
    """

    def __init__(self, size: int, limit: float, nice: int = 0) -> None:
        self.workers = [Worker(nice) for _ in range(size)]
        self.idle: asyncio.Queue[Worker] = asyncio.Queue()
        self.limit, self.waiting = limit, 0
        self.answers = Answers()
        self.tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Start all processes."""
        for worker in self.workers:
            await worker.start()
            self.idle.put_nowait(worker)

    async def stop(self) -> None:
        """End all processes."""
        for task in self.tasks:
            task.cancel()
        for worker in self.workers:
            await worker.end()

    async def ask(self, job: Job) -> AsyncIterator[Message]:
        """Yield progress and parts of an answer, and at last why it ended.

        Whoever closes the iterator stops the question.
        """
        known = self.answers.get(job.key)
        if known is not None:
            for message in known:
                await asyncio.sleep(0)  # others, and who has left, are heard in between
                yield message
            return
        self.waiting += 1
        try:
            if self.idle.empty():
                yield {"progress": f"waiting, {self.waiting} in line"}
            worker = await self.idle.get()
        finally:
            self.waiting -= 1
        finished = False
        kept: list[Message] = []
        worker.asked += 1
        try:
            await worker.send(
                {
                    "ask": worker.asked,
                    "name": job.name,
                    "problem": job.problem,
                    "arguments": dict(job.arguments),
                }
            )
            async with asyncio.timeout(self.limit):
                while not finished:
                    message = await worker.receive()
                    if "ready" in message:
                        continue
                    finished = message.get("end") not in (None, "gone")
                    if "progress" not in message:
                        kept.append(message)
                    yield message
                    if message.get("end") == "gone":
                        break
            if message.get("end") == "answered":
                self.answers.put(job.key, kept)
        except TimeoutError:
            said = f"given up after {self.limit:.0f} s; ask for less at once"
            yield {"error": said, "end": "late"}
        except (BrokenPipeError, ConnectionResetError):
            yield {"error": "the process that computes is gone; ask again", "end": "gone"}
        finally:
            # in a task of its own: whoever leaves does not wait until the worker has stopped
            task = asyncio.create_task(self._back(worker, finished))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _back(self, worker: Worker, finished: bool) -> None:
        """Put a worker back among the idle ones; one that does not stop is replaced."""
        if not finished:
            try:
                await worker.send({"stop": worker.asked})
                async with asyncio.timeout(PATIENCE):
                    while (await worker.receive()).get("end") is None:
                        pass
                alive = worker.process is not None and worker.process.returncode is None
            except (TimeoutError, OSError):
                alive = False
            if not alive:
                await worker.end()
                await worker.start()
        self.idle.put_nowait(worker)


def _environment() -> dict[str, str]:
    import os

    # the models' matrices are small: threads of BLAS would only wait for each other
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def _renice(pid: int, nice: int) -> None:
    import os

    if nice and hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, pid, nice)
