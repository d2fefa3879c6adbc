"""The routes: what is asked under which address. Everything heavy is the workers'."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from resnetkit._version import __version__
from resnetkit.serving import documents
from resnetkit.serving.desk import Desk, Reply
from resnetkit.serving.documents import ASKING, LOOKING, problems
from resnetkit.serving.forms import FORM, JSON, OCTETS, media_type
from resnetkit.serving.guard import GONE, Gone, Visit
from resnetkit.serving.limits import Limits
from resnetkit.serving.measures import Measures
from resnetkit.serving.refusal import Refused, bad, busy
from resnetkit.serving.telling import strict_json

PAGE = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "record.js": "text/javascript; charset=utf-8",
    "words.js": "text/javascript; charset=utf-8",
}
ModelName = Annotated[str | None, Query(description="Which model; the first if left out.", max_length=256)]
ModelPath = Annotated[str, Path(description="Name of the model.", max_length=256)]
Top = Annotated[
    int | None, Query(description="Most classes (5 if left out) or boxes (100) in an answer.", ge=1, le=1000)
]
Coverage = Annotated[float | None, Query(description="Also the set that holds the true class this often.", gt=0, lt=1)]
Overlay = Annotated[bool, Query(description="Also a picture of what spoke for the class (Grad-CAM), as a data: URL.")]
Label = Annotated[str | None, Query(description="The class that `overlay` explains; the best if left out.")]

NO_ROUTE = {
    404: ("no_route", "there is nothing under this address"),
    405: ("no_method", "this address has another method"),
}

router = APIRouter()


@dataclass(frozen=True)
class Service:
    """What the routes answer from."""

    desks: Mapping[str, Desk]
    limits: Limits
    measures: Measures

    def desk(self, name: str | None) -> Desk:
        """Of the model of this name; of the first if none is said.

        Raises:
            Refused: there is none.
        """
        found = next(iter(self.desks.values())) if name is None else self.desks.get(name)
        if found is None:
            raise Refused(404, "no_model", f"there is no such model: this server has {', '.join(self.desks)}")
        return found


def create_app(service: Service, prefix: str = "") -> FastAPI:
    """The routes of a service; `prefix` is what a proxy has in front of them."""
    app = FastAPI(
        title="resnetkit",
        version=__version__,
        description=documents.DESCRIPTION,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        servers=[{"url": prefix or "/"}],
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.service = service
    app.include_router(router)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(ClientDisconnect, _left)
    app.add_exception_handler(Gone, _left)
    return app


def _refusal(request: Request, refusal: Refused) -> Response:
    headers, body = _visit(request).refused(refusal)
    return Response(body, refusal.status, headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _refusal(request, error)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return _refusal(request, bad(f"{first['loc'][-1]}: {first['msg']}"))


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code, what = NO_ROUTE.get(error.status_code, ("bad_request", "a bad request"))
    return _refusal(request, Refused(error.status_code, code, what))


async def _left(request: Request, error: Exception) -> Response:
    return Response(status_code=GONE)  # nobody hears it; it is counted


def _visit(request: Request) -> Visit:
    visit: Visit = request.state.visit
    return visit


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _told(value: Any) -> Response:
    return Response(strict_json(value), media_type=JSON)


@router.get("/", include_in_schema=False)
def page() -> Response:
    """The page."""
    return page_file("index.html")


@router.get("/page/{name}", include_in_schema=False)
def page_file(name: str) -> Response:
    """A file of the page, from a list of them."""
    if name not in PAGE:
        raise Refused(404, "no_route", "there is nothing under this address")
    content = (resources.files("resnetkit") / "serving" / "page" / name).read_bytes()
    return Response(content, headers={"content-type": PAGE[name]})


@router.get("/info", response_model=documents.Info, responses=problems(LOOKING))
async def info(request: Request, model: ModelName = None) -> Response:
    """Model cards, classes, preprocessing, scores and limits."""
    service = _service(request)
    desks = [service.desk(model)] if model is not None else list(service.desks.values())
    names = ("max_bytes", "max_files", "max_pixels", "max_queue", "answer_seconds")
    limits = {name: getattr(service.limits, name) for name in names}
    return _told(
        {
            "server": {"name": "resnetkit", "version": __version__},
            "models": [{**desk.info, "ready": desk.ready} for desk in desks],
            "limits": limits,
        }
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses={**problems(LOOKING), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Counts and times, for Prometheus."""
    return Response(_service(request).measures.text(), headers={"content-type": "text/plain; version=0.0.4"})


@router.get("/v2", response_model=documents.ServerMetadata, responses=problems(LOOKING))
async def server_metadata() -> Response:
    """The server."""
    return _told({"name": "resnetkit", "version": __version__, "extensions": ["binary_tensor_data"]})


@router.get("/v2/health/live", response_model=documents.Live, responses=problems(LOOKING))
async def live(request: Request) -> Response:
    """Whether the server is worth keeping: not after several workers in a row could not even begin."""
    if not all(desk.alive for desk in _service(request).desks.values()):
        raise busy("a worker cannot be started")
    return _told({"live": True})


@router.get("/v2/health/ready", response_model=documents.Ready, responses=problems(LOOKING))
async def ready(request: Request) -> Response:
    """Whether every model has answered a real inference, and the server is not about to end."""
    for desk in _service(request).desks.values():
        desk.refuse_unready()
    return _told({"live": True, "ready": True})


@router.get("/v2/models/{name}", response_model=documents.ModelMetadata, responses=problems(LOOKING))
async def model_metadata(request: Request, name: ModelPath) -> Response:
    """Inputs and outputs of a model. It takes one of its inputs: encoded files, or arrays."""
    desk = _service(request).desk(name)
    told = {each: desk.info[each] for each in ("inputs", "outputs")}
    return _told({"name": name, "platform": f"resnetkit_{desk.info['backend']}", **told})


@router.get("/v2/models/{name}/ready", response_model=documents.ModelReady, responses=problems(LOOKING))
async def model_ready(request: Request, name: ModelPath) -> Response:
    """Whether a model has answered a real inference."""
    _service(request).desk(name).refuse_unready()
    return _told({"name": name, "ready": True})


@router.post(
    "/v2/models/{name}/infer",
    response_model=documents.Inferred,
    responses=problems(ASKING),
    openapi_extra=documents.INFER_BODY,
)
async def infer(request: Request, name: ModelPath) -> Response:
    """Labels and scores of all classes for tensors, in JSON or as bytes behind it."""
    desk = _service(request).desk(name)
    length = request.headers.get("inference-header-content-length", "")
    if not length and media_type(request.headers.get("content-type", "")) != JSON:
        raise Refused(415, "unsupported", f"Content-Type: send {JSON}, or Inference-Header-Content-Length")
    return await _asked(request, desk, {"kind": "infer", "type": JSON, "json_length": length})


@router.post(
    "/predict", response_model=documents.Answers, responses=problems(ASKING), openapi_extra=documents.PREDICT_BODY
)
async def predict(
    request: Request,
    model: ModelName = None,
    top: Top = None,
    coverage: Coverage = None,
    overlay: Overlay = False,
    label: Label = None,
) -> Response:
    """Answers to a file, or to several in a form: those of `resnetkit predict`."""
    desk = _service(request).desk(model)
    header = request.headers.get("content-type", "")
    kind = media_type(header)
    taken = {OCTETS, FORM, *desk.info["accepts"]}
    if kind not in taken and f"{kind.partition('/')[0]}/*" not in taken:
        raise Refused(415, "unsupported", f"Content-Type: send {', '.join(desk.info['accepts'])}")
    head = {"kind": "predict", "type": header, "top": top, "coverage": coverage, "overlay": overlay, "label": label}
    return await _asked(request, desk, head)


async def _asked(request: Request, desk: Desk, head: Mapping[str, Any]) -> Response:
    """The worker's answer to a request; whoever has left gives its place free."""
    desk.refuse()
    visit = _visit(request)
    body = await request.body()
    visit.notes["model"] = desk.opening.name
    reply = await _until_gone(request, desk.ask({**head, "request": visit.id}, body))
    visit.notes |= {"inputs": reply.items, "failed": reply.failed, "sha256": reply.digest}
    return Response(reply.body, headers=dict(reply.headers))


async def _until_gone(request: Request, work: Coroutine[Any, Any, Reply]) -> Reply:
    """The result of some work, which is left when the client is.

    Raises:
        Gone: it was.
    """
    asked, left = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({asked, left}, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            raise Gone
        return asked.result()
    finally:
        asked.cancel()
        left.cancel()
        await asyncio.gather(asked, left, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
