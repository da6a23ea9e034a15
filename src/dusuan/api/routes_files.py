"""Endpoints that carry bytes: uploads, logs, meters as streams, outputs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path as FilePath
from typing import Annotated, Any, BinaryIO
from urllib.parse import quote

import anyio
from anyio import to_thread
from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from dusuan.api import models, streams
from dusuan.api.call import Answer, Call, Calling
from dusuan.app import jobs, uploads
from dusuan.app.context import refuse

router = APIRouter(tags=["files"])

COPY_BYTES = 262_144
GZIP_MAGIC = b"\x1f\x8b"
JobId = Annotated[models.Text, Path()]
Follow = Annotated[bool, Query(description="go on as server-sent events until the job ends")]
Accept = Annotated[str, Header()]


@router.post(
    "/uploads",
    status_code=201,
    response_model=models.UploadView,
    response_model_exclude_unset=True,
    openapi_extra={"requestBody": {"required": True, "content": {"application/gzip": {}}}},
)
async def upload(request: Request, call: Calling) -> Answer:
    """Upload a work directory: the body is a gzip tar archive."""
    await to_thread.run_sync(lambda: call.read(lambda tx: uploads.check_may_upload(tx, call.actor)))
    most = call.platform.limits.upload_bytes
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced) > most:
        raise _too_large(most)
    upload_id = call.platform.new_id("upl")
    part = call.platform.uploads / f".{upload_id}.partial"
    try:
        sha256, size = await _receive(request, part, most, call.platform.limits.body_wait_s)
        return await to_thread.run_sync(partial(_keep, call, upload_id, part, sha256, size))
    finally:
        part.unlink(missing_ok=True)


async def _receive(request: Request, part: FilePath, most: int, wait_s: float) -> tuple[str, int]:
    """Stream the body into the file `part`; its SHA-256 and its bytes."""
    digest, size = hashlib.sha256(), 0
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("xb") as file:
        async for chunk in _chunks(request, wait_s):
            if size < len(GZIP_MAGIC) and not _begins_gzip(size, chunk):
                raise _not_gzip()
            size += len(chunk)
            if size > most:
                raise _too_large(most)
            digest.update(chunk)
            await to_thread.run_sync(file.write, chunk)
        file.flush()
        await to_thread.run_sync(os.fsync, file.fileno())
    if size < len(GZIP_MAGIC):
        raise _not_gzip()
    return digest.hexdigest(), size


async def _chunks(request: Request, wait_s: float) -> AsyncIterator[bytes]:
    """The body as it comes. Raises `Refused` too_slow when nothing has come for `wait_s`."""
    stream = request.stream()
    while True:
        try:
            with anyio.fail_after(wait_s):
                chunk = await anext(stream, None)
        except TimeoutError:
            text = f"the upload fell silent for {wait_s:g} s"
            raise refuse("too_slow", "upload_too_slow", text, "upload again") from None
        if chunk is None:
            return
        yield chunk


def _begins_gzip(at: int, chunk: bytes) -> bool:
    expected = GZIP_MAGIC[at:][: len(chunk)]
    return chunk.startswith(expected)


def _keep(call: Call, upload_id: str, part: FilePath, sha256: str, size: int) -> Answer:
    """Give the complete file its name, then write it down."""
    kept = call.platform.uploads / f"{upload_id}.tar.gz"
    part.replace(kept)
    try:
        return call.write(
            lambda tx: uploads.record(call.platform, tx, call.actor, upload_id, sha256, size)
        )
    except BaseException:
        kept.unlink(missing_ok=True)
        raise


def _too_large(most: int) -> Exception:
    text = f"the upload is larger than {most} bytes"
    return refuse("too_large", "upload_too_large", text, "upload less; fetch data in `setup:`")


def _not_gzip() -> Exception:
    return refuse("invalid", "not_gzip", "the body is no gzip archive", "send a .tar.gz")


@router.get(
    "/jobs/{job_id}/logs",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/plain": {}, "text/event-stream": {}}}},
)
def logs(
    request: Request,
    call: Calling,
    job_id: JobId,
    attempt: Annotated[int | None, Query(ge=1, le=10**9)] = None,
    follow: Follow = False,
    accept: Accept = "",
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """A job's output. With `Accept: text/event-stream` or `follow`: `log` events, then `end`."""
    call.read(lambda tx: jobs.with_files(tx, call.actor, job_id))
    view = call.read(lambda tx: tx.look(jobs.show(call.actor, job_id)))
    numbers = [each["number"] for each in view["attempts"]]
    if attempt is not None and attempt not in numbers:
        raise refuse("not_found", "no_attempt", f"{job_id} has no attempt {attempt}")
    if follow or "text/event-stream" in accept:
        place = streams.parse_place(last_event_id)
        events = streams.follow_log(request, call, job_id, place, attempt)
        return StreamingResponse(events, media_type="text/event-stream")
    named = [a["attempt_id"] for a in view["attempts"] if attempt in (None, a["number"])]
    return StreamingResponse(_whole_log(call, named), media_type="text/plain; charset=utf-8")


def _whole_log(call: Call, attempt_ids: list[str]) -> Iterator[bytes]:
    for attempt_id in attempt_ids:
        offset = 0
        while chunk := call.hooks.read_log(attempt_id, offset, COPY_BYTES):
            offset += len(chunk)
            yield chunk


@router.get(
    "/jobs/{job_id}/meter",
    response_model=models.MeterView,
    response_model_exclude_unset=True,
    responses={200: {"content": {"text/event-stream": {}}}},
)
def meter(
    request: Request, call: Calling, job_id: JobId, follow: Follow = False, accept: Accept = ""
) -> Response:
    """What a job has held and cost so far: once as JSON, or as `meter` events, then `end`."""
    view: dict[str, Any] = streams.read_meter(call, job_id)
    if follow or "text/event-stream" in accept:
        events = streams.follow_meter(request, call, job_id)
        return StreamingResponse(events, media_type="text/event-stream")
    return JSONResponse(view)


@router.get(
    "/jobs/{job_id}/outputs", response_model=models.OutputList, response_model_exclude_unset=True
)
def list_outputs(call: Calling, job_id: JobId) -> Answer:
    """The files that a job left in its output directory."""
    call.read(lambda tx: jobs.with_files(tx, call.actor, job_id))
    files = [{"path": path, "bytes": size} for path, size in call.hooks.outputs(job_id)]
    return {"job_id": job_id, "files": files}


@router.get(
    "/jobs/{job_id}/outputs/{path:path}",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
def download(call: Calling, job_id: JobId, path: Annotated[models.Text, Path()]) -> Response:
    """One output file. Nothing but plain files below the output directory can be named."""
    call.read(lambda tx: jobs.with_files(tx, call.actor, job_id))
    try:
        file = call.hooks.open_output(job_id, path)
    except FileNotFoundError:
        text = f"{job_id} has no output {path!r}"
        raise refuse("not_found", "no_output", text, f"dusuan outputs {job_id}") from None
    name = quote(FilePath(path).name)
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
    return StreamingResponse(_copy(file), headers=headers, media_type="application/octet-stream")


def _copy(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(COPY_BYTES):
            yield chunk
