"""The server: the page, streams of answers, and files in and out."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import (
    HTMLResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from bestserve._version import __version__
from bestserve.cli.options import DEFAULT_GOODPUT, DEFAULT_LENGTHS
from bestserve.errors import BestserveError, DataError
from bestserve.readers.mappings import parse_mapping
from bestserve.reporting.templates import environment
from bestserve.specs.problem import Problem
from bestserve.web.copies import problem_file, python_call, shell_command, to_flags
from bestserve.web.fields import OPEN, grouped
from bestserve.web.longer import LONGER, OBJECTIVES
from bestserve.web.panels import PANELS, wrapped
from bestserve.web.query import Asked, look_up, query_of, read_query
from bestserve.web.safety import Guard, is_local, known_names
from bestserve.web.workers import Crew, Job, Message

if TYPE_CHECKING:
    from starlette.requests import Request

LARGEST_PROBLEM = 250_000
"""Bytes of a problem file."""
MOST_FIELDS = 100
"""Fields of a form; the problem's are half as many."""
PIECE = 1 << 20
"""Bytes of an upload at a time."""
QUICK, LONG = 60.0, 900.0
"""Seconds after which a question is given up: those after every change, and the others."""
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
LEADERS, LEADERS_TEXT = 4, 400
"""Strategies of the former answer that are looked at first, and characters of their names."""
EXAMPLE = {
    "model": "meta-llama/Llama-3.1-8B",
    "hardware": "h100-sxm",
    "gpus": "4",
    **{name.replace("_", "-"): law for name, law in DEFAULT_LENGTHS.items()},
    "goodput": DEFAULT_GOODPUT,
}
"""What a page without a question is filled with."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How the page is served.

    host : address it is bound to; workers : processes for quick questions, and as many for long
    embedded : whether notebooks may show it in a frame
    """

    host: str = "127.0.0.1"
    workers: int = max(2, (os.cpu_count() or 2) // 2)
    embedded: bool = False


def build(settings: Settings) -> Starlette:
    """Return the application; its workers start and end with it."""
    quick = Crew(settings.workers, QUICK)
    long = Crew(settings.workers, LONG, nice=5)

    @contextlib.asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        await quick.start()
        await long.start()
        try:
            yield
        finally:
            await quick.stop()
            await long.stop()

    app = Starlette(
        routes=[
            Route("/", page),
            Route("/answers", answers),
            Route("/long/{name}", long_question, methods=["POST"]),
            Route("/problem", drop, methods=["POST"]),
            Route("/problem.toml", take),
            Route("/static/{name}", static),
            Route("/ready", ready),
        ],
        middleware=[
            Middleware(Guard, names=known_names(settings.host), embedded=settings.embedded)
        ],
        exception_handlers={BestserveError: refused},
        lifespan=running,
    )
    app.state.quick, app.state.long = quick, long
    app.state.local = is_local(settings.host)
    return app


def asked_of(request: Request) -> Asked:
    """Return what a request's query asks."""
    return read_query(request.query_params.multi_items(), files=request.app.state.local)


async def page(request: Request) -> Response:
    """The whole page; without scripts it holds the answers already."""
    asked = asked_of(request)
    blank = not asked.given and not asked.rest
    shown = read_query(EXAMPLE.items()) if blank else asked
    found = ""
    if "now" in request.query_params and shown.problem is not None:
        found = await collected(request.app.state.quick, Job("first", plain(shown.problem)))
    template = environment().get_template("web/page.html.j2")
    return HTMLResponse(
        template.render(
            asked=shown,
            groups=grouped(),
            open_groups=OPEN,
            panels=PANELS,
            objectives=OBJECTIVES,
            copies=copies(shown),
            now=Markup(found),  # parts that our own templates made
            version=__version__,
        )
    )


async def collected(crew: Crew, job: Job) -> str:
    """Return the parts of a quick answer in one piece, for browsers without scripts."""
    parts = []
    async for message in crew.ask(job):
        if "part" in message and 'hx-target="#brief"' not in message["part"]:
            # the panels themselves, without the wrapping that scripts take off
            parts.append(message["part"].partition(">")[2].removesuffix("</hx-partial>"))
        elif "error" in message:
            parts.append(str(escape(message["error"])))
    return "".join(parts)


def plain(problem: Problem) -> dict[str, Any]:
    """Return a problem as workers read it."""
    found: dict[str, Any] = problem.model_dump(mode="json", exclude_none=True)
    return found


def copies(asked: Asked) -> dict[str, str]:
    """Return what can be copied: shell command and Python call."""
    if asked.problem is None:
        return {"shell": "", "python": ""}
    return {"shell": shell_command(asked), "python": python_call(asked.problem)}


async def answers(request: Request) -> Response:
    """Stream what follows a change: what is wrong, or what is found, part by part."""
    asked = asked_of(request)
    state = request.app.state

    async def stream() -> AsyncIterator[str]:
        yield event(form_parts(asked))
        if asked.problem is None:
            yield event("", "refused")
            return
        stated = plain(asked.problem)
        keep = request.query_params.get("keep", "")[:LEADERS_TEXT].split()[:LEADERS]
        jobs = [(state.quick, Job("first", stated)), (state.long, Job("confirmed", stated))]
        if keep:
            jobs.insert(0, (state.quick, Job("glance", stated, {"keep": keep})))
        for crew, job in jobs:
            async for message in crew.ask(job):
                yield told(message)
            yield event(job.name, "found")
        yield event("", "done")

    return StreamingResponse(stream(), media_type="text/event-stream")


async def long_question(request: Request) -> Response:
    """Stream the answer to a question that takes its time; its form comes with the problem's."""
    name = request.path_params["name"]
    if name not in LONGER:
        return PlainTextResponse("no such question", status_code=404)
    bounds = {"max_files": 1, "max_fields": MOST_FIELDS, "max_part_size": LARGEST_PROBLEM}
    async with request.form(**bounds) as form:
        pairs = [(key, value) for key, value in form.multi_items() if isinstance(value, str)]
        file = await kept(form.get("q-file"))
    asked = read_query(pairs, files=request.app.state.local)
    arguments = {key: value for key, value in pairs if key.startswith("q-")}
    if file is not None:
        arguments["file"] = str(file)

    async def stream() -> AsyncIterator[str]:
        try:
            if asked.problem is None:
                yield event(problem_part(name, "first mend what the form of the problem says"))
                yield event("", "done")
                return
            yield event(problem_part(name, ""))
            job = Job(name, plain(asked.problem), arguments)
            async for message in request.app.state.long.ask(job):
                yield told(message, name)
            yield event("", "done")
        finally:
            if file is not None:
                shutil.rmtree(file.parent, ignore_errors=True)

    return StreamingResponse(stream(), media_type="text/event-stream")


async def kept(upload: Any) -> Path | None:
    """Return an uploaded file in a folder of its own, under a harmless name; None without one."""
    if upload is None or isinstance(upload, str) or not upload.filename:
        return None
    name = re.sub(r"[^A-Za-z0-9._-]", "_", upload.filename)[-60:].lstrip(".") or "file"
    file = Path(tempfile.mkdtemp(prefix="bestserve-")) / name
    with file.open("wb") as target:
        while piece := await upload.read(PIECE):
            target.write(piece)
    return file


def event(data: str, name: str = "") -> str:
    """Return one server-sent event."""
    head = f"event: {name}\n" if name else ""
    lines = "".join(f"data: {line}\n" for line in data.splitlines() or [""])
    return f"{head}{lines}\n"


def told(message: Message, place: str = "") -> str:
    """Return a worker's message as an event that changes the page.

    place : of the question, "" for those after every change
    """
    if "part" in message:
        return event(message["part"])
    if "error" in message:
        return event(problem_part(place, message["error"]))
    text = message.get("progress", "")
    name = f"progress-{place}" if place else "progress"
    return event(f'<hx-partial hx-target="#{name}" hx-swap="innerHTML">{escape(text)}</hx-partial>')


def problem_part(place: str, sentence: str) -> str:
    """Return the part that says what went wrong."""
    name = f"trouble-{place}" if place else "trouble"
    alert = ' role="alert"' if sentence else ""
    return wrapped(name, f'<p id="{name}" class="trouble"{alert}>{escape(sentence)}</p>')


def form_parts(asked: Asked) -> str:
    """Return what a change does to the form: errors beside fields, notes, what can be copied."""
    template = environment().get_template("web/form_state.html.j2")
    return template.render(asked=asked, groups=grouped(), copies=copies(asked))


async def drop(request: Request) -> Response:
    """Take a problem file, and lead to the page that asks the same."""
    async with request.form(max_files=1, max_fields=1, max_part_size=LARGEST_PROBLEM) as form:
        file = form.get("file")
        if file is None or isinstance(file, str):
            raise DataError("no file came with this; choose a problem file")
        text = (await file.read(LARGEST_PROBLEM + 1)).decode("utf-8", errors="replace")
        name = file.filename or "the file"
    if len(text) > LARGEST_PROBLEM:
        raise DataError(f"{name[:80]}: more than {LARGEST_PROBLEM} bytes")
    form_of = {"yaml": "yaml", "yml": "yaml", "json": "json"}
    kind = form_of.get(name.rpartition(".")[2].lower(), "toml")
    values = parse_mapping(text, kind, name[:80])  # type: ignore[arg-type]
    if not isinstance(values, dict):
        raise DataError(f"{name[:80]}: holds no table of fields")
    problem = Problem(**values)
    look_up(problem)
    return RedirectResponse(f"/?{query_of(*to_flags(problem))}", status_code=303)


async def take(request: Request) -> Response:
    """The problem as a TOML file."""
    asked = asked_of(request)
    if asked.problem is None:
        raise DataError("; ".join(asked.errors.values()) or "no problem stated")
    name = 'attachment; filename="problem.toml"'
    return Response(
        problem_file(asked.problem),
        media_type="application/toml",
        headers={"content-disposition": name},
    )


async def static(request: Request) -> Response:
    """Our own scripts and styles, and the vendored ones."""
    name = request.path_params["name"]
    data = resources.files("bestserve") / "data"
    known = {entry.name: entry for entry in (data / "web" / "static").iterdir()}
    known["shared.css"] = data / "report" / "shared.css"
    ending = f".{name.rpartition('.')[2]}"
    if name not in known or ending not in TYPES:
        return PlainTextResponse("not found", status_code=404)
    kept = {"cache-control": f"max-age={3600 if request.url.query else 0}"}
    return Response(known[name].read_bytes(), media_type=TYPES[ending], headers=kept)


async def ready(request: Request) -> Response:
    """Say that the server is there, for a page that has lost it."""
    return PlainTextResponse(json.dumps({"version": __version__}))


async def refused(request: Request, error: Exception) -> Response:
    """Say in a sentence what is wrong."""
    template = environment().get_template("web/refused.html.j2")
    return HTMLResponse(template.render(sentence=str(error)), status_code=400)
