"""The web application: the page, and the JSON interface with its OpenAPI description."""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import FastAPI, File, Form, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, ValidationError
from starlette.background import BackgroundTask
from starlette.types import ASGIApp

from electramed_jax import __version__
from electramed_jax.common.errors import UserError
from electramed_jax.finetune.predict_files import PredictionStats
from electramed_jax.serve import page, schemas
from electramed_jax.serve.access import HEALTH, Access
from electramed_jax.serve.limits import BodyLimit, BusyError, Limits, RequestQueue
from electramed_jax.serve.services import FileService, Service

HEADERS = {
    "Content-Security-Policy": page.POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
ENDINGS = {"bioc": "json", "squad": "json", "bioasq": "json", "pubtator": "txt", "conll": "tsv", "brat": "zip"}
BUSY = "the server is busy; send the request again in a moment"
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": schemas.Problem, "description": description}
    for status, description in (
        (401, "no token or a wrong one"),
        (413, "the request is too large"),
        (422, "the input cannot be read"),
        (503, "too many requests wait"),
    )
}
_MASK = re.compile(r"(\d{1,9})-(\d{1,9})")
_ENDING = re.compile(r"(?:\.[A-Za-z0-9]{1,10}){1,2}$")


class TooLongError(UserError):
    """The text of a request has more characters than the limit."""


def create_app(service: Service, limits: Limits, token: str | None = None) -> ASGIApp:
    """Returns the application for one model.

    Args:
      token: see `Access`.
    """
    app = FastAPI(
        title=f"electramed serve: {service.name}",
        version=__version__,
        description=f"Predicts {service.kind}. Offsets count the characters (Unicode code points) of a text.",
        docs_url=None,  # FastAPI's pages load scripts from the network
        redoc_url=None,
    )
    queue = RequestQueue(limits.max_pending)
    _add_page(app, service, limits, queue)
    _add_json(app, service, limits, queue)
    if isinstance(service, FileService):
        _add_files(app, service, queue)
    _add_error_handlers(app)
    return Access(BodyLimit(app, limits), token, HEADERS)


def _add_page(app: FastAPI, service: Service, limits: Limits, queue: RequestQueue) -> None:
    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def show() -> HTMLResponse:
        return HTMLResponse(page.render(service, {}, max_text=limits.max_text))

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> Response:
        return Response(status_code=204)  # browsers request it by themselves

    @app.post("/", response_class=HTMLResponse, include_in_schema=False)
    async def submit(request: Request) -> HTMLResponse:
        form = await request.form(max_files=0, max_part_size=4 * limits.max_text)
        sent = {name: value for name, value in form.items() if isinstance(value, str)}
        values = {field.name: sent.get(field.name, "").replace("\r\n", "\n") for field in service.fields}
        try:
            given = _to_input(service, values, sent.get("mask", ""))
            _check_length([given], limits)
            (result,) = await queue.run(lambda: service.predict([given]))
        except BusyError:
            return HTMLResponse(page.render(service, values, error=BUSY, max_text=limits.max_text), 503)
        except UserError as error:
            status = 413 if isinstance(error, TooLongError) else 422
            return HTMLResponse(page.render(service, values, error=str(error), max_text=limits.max_text), status)
        return HTMLResponse(page.render(service, values, service.render(given, result), max_text=limits.max_text))


def _to_input(service: Service, values: Mapping[str, str], mask: str) -> Any:
    """Returns the input of the form; raises UserError if a field is empty."""
    for field in service.fields:
        if field.required and not values[field.name].strip():
            raise UserError(f"{field.label} is empty; enter a text")
    masks = {"masks": [match.groups()]} if (match := _MASK.fullmatch(mask)) else {}
    try:
        return service.input_type.model_validate({**values, **masks})
    except ValidationError as error:
        raise UserError(str(error.errors()[0]["msg"])) from error


def _check_length(inputs: Sequence[BaseModel], limits: Limits) -> None:
    length = sum(len(value) for given in inputs for value in given.model_dump().values() if isinstance(value, str))
    if length > limits.max_text:
        raise TooLongError(f"{length:,} characters; a request may have {limits.max_text:,}; send parts, or a file")


def _add_json(app: FastAPI, service: Service, limits: Limits, queue: RequestQueue) -> None:
    request_type = schemas.Request[service.input_type]  # type: ignore[name-defined]
    response_type = schemas.Response[service.result_type]  # type: ignore[name-defined]

    async def predict(body: Any) -> Any:
        _check_length(body.inputs, limits)
        results = await queue.run(lambda: service.predict(body.inputs))
        return response_type(model=service.name, results=results)

    predict.__annotations__ = {"body": request_type, "return": response_type}
    app.post(
        "/api/predict",
        response_model=response_type,
        response_model_exclude_none=service.kind == "labels",
        responses=PROBLEMS,
        summary=f"Predict {service.kind}",
    )(predict)

    @app.get("/api/model", summary="Describe the model and the limits")
    async def describe() -> schemas.ModelInfo:
        return schemas.ModelInfo(
            model=service.name,
            kind=service.kind,
            labels=list(service.labels),
            formats=list(service.formats),
            max_text=limits.max_text,
            max_upload=limits.max_upload,
        )

    @app.get(HEALTH, summary="Answer that the server runs")
    async def health() -> dict[str, str]:
        return {"status": "ok"}


def _add_files(app: FastAPI, service: FileService, queue: RequestQueue) -> None:
    @app.post(
        "/api/files",
        response_class=FileResponse,
        responses=PROBLEMS,
        summary="Predict for a file",
        description="Reads the formats of electramed predict, recognized by content, and writes the format chosen. "
        "Headers X-Documents-Read and X-Documents-Dropped count what was read and left out.",
    )
    async def predict_file(file: Annotated[UploadFile, File()], format: Annotated[str, Form()] = "jsonl") -> Any:
        if format not in service.formats:
            raise UserError(f"format={format}: wanted one of {', '.join(service.formats)}")
        folder = tempfile.TemporaryDirectory(prefix="electramed-serve-")
        try:
            ending = _ENDING.search(os.path.basename(file.filename or ""))
            path, output = os.path.join(folder.name, f"input{ending[0] if ending else ''}"), f"{folder.name}/output"
            stats = PredictionStats()
            pieces = service.predict_file(path, format, output, stats)

            def save_and_start() -> bool:
                with open(path, "wb") as copy:
                    while block := file.file.read(1 << 20):
                        copy.write(block)
                return next(pieces, False) is None

            more = await queue.run(save_and_start)
            while more:  # other requests run between the pieces
                more = await queue.run(lambda: next(pieces, False) is None, is_continued=True)
        except BaseException:
            folder.cleanup()
            raise
        dropped = Counter({name: n for name, n in stats.dropped.items() if not name.startswith("repaired_")})
        return FileResponse(
            output,
            media_type="text/html" if format == "html" else "application/octet-stream",
            filename=f"{service.kind}.{ENDINGS.get(format, format)}",
            headers={"X-Documents-Read": str(stats.items), "X-Documents-Dropped": str(dropped.total())},
            background=BackgroundTask(folder.cleanup),
        )


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(UserError)
    async def reject(_request: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"detail": re.sub(r"\S*/electramed-serve-[^/\s]+/", "", str(error))}, _status(error))

    @app.exception_handler(BusyError)
    async def busy(_request: Request, _error: BusyError) -> JSONResponse:
        return JSONResponse({"detail": BUSY}, 503, {"Retry-After": "1"})

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        problems = [{"where": ".".join(map(str, one["loc"])), "problem": one["msg"]} for one in error.errors()[:10]]
        return JSONResponse({"detail": problems}, 422)

    @app.exception_handler(Exception)
    async def failed(_request: Request, _error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "the prediction failed; the server's log has the reason"}, 500)


def _status(error: UserError) -> int:
    return 413 if isinstance(error, TooLongError) else 422
