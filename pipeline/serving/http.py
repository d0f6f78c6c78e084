"""The server's addresses: the page, its JSON, its pictures and its videos.

Nothing is loaded from other servers. Requests from other sites' pages (checked by ``Host`` and
``Origin``) are refused and, on any address but loopback, requests without the token.
"""

import asyncio
import hmac
import ipaddress
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import (
    FileResponse,
    JSONResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)

from pipeline.serving import media
from pipeline.serving.service import GoneError, LabelRequest, SearchRequest, Service
from tcmgc.video import DecodeError

log = logging.getLogger("ray.serve")

COOKIE = "tcmgc-token"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
_PAGE = {"app.js": "text/javascript", "app.css": "text/css"}

Search = Callable[[SearchRequest], Awaitable[Any]]


def application(service: Service, search: Search, token: str | None) -> FastAPI:
    """The server as an ASGI application.

    Args:
        service: answers requests.
        search: answers searches; returns the answer or an exception.
        token: required in every request; None on loopback.
    """
    app = FastAPI(
        title="Video search",
        description="Search an index of videos: a sentence finds the moment.",
        version="1",
        docs_url=None,  # their scripts are loaded from other servers
        redoc_url=None,
    )

    @app.middleware("http")
    async def guard(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        refusal = _refusal(request, token)
        if refusal is not None:
            return refusal
        try:
            response = await go_on(request)
        except Exception:
            log.exception("%s %s failed", request.method, request.url.path)
            response = _error(500, "something went wrong here; the server's log says what")
        response.headers.update(_HEADERS)
        return response

    @app.exception_handler(GoneError)
    async def gone(_: Request, error: GoneError) -> Response:
        return _error(404, str(error))

    @app.exception_handler(FileNotFoundError)
    async def missing(_: Request, error: FileNotFoundError) -> Response:
        return _error(404, "the file is gone since it was indexed")

    @app.exception_handler(DecodeError)
    async def undecodable(_: Request, error: DecodeError) -> Response:
        return _error(422, f"this cannot be decoded: {error.reason}")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(
            media.page_folder() / "index.html", headers={"Cache-Control": "no-cache"}
        )

    @app.get("/page/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in _PAGE:
            return _error(404, "no such file")
        path = media.page_folder() / name
        return FileResponse(path, media_type=_PAGE[name], headers={"Cache-Control": "no-cache"})

    @app.get("/api/index")
    async def index() -> dict[str, Any]:
        """What is searched: number of videos and windows, model, folders, damage."""
        return await asyncio.to_thread(service.about)

    @app.post("/api/search")
    async def find(request: SearchRequest) -> Any:
        """Ranked videos with their best moments."""
        found = await search(request)
        if isinstance(found, GoneError):
            raise found
        if isinstance(found, Exception):
            return _error(400, str(found))
        return found

    @app.get("/api/explain/{id}")
    async def why(id: str, query: str) -> Any:
        """How each word of a query weighs the frames of a window, and the contrasts' scores and weights."""
        try:
            return await asyncio.to_thread(service.explain, id, query)
        except ValueError as error:
            return _error(400, str(error))

    @app.get("/api/strip/{id}", response_class=Response)
    async def strip(id: str) -> Response:
        """A window's thumbnail strip (JPEG)."""
        content = await asyncio.to_thread(service.strip, id)
        return Response(content, media_type="image/jpeg", headers=_FOREVER)

    @app.get("/api/frames/{id}", response_class=Response)
    async def frames(id: str) -> Response:
        """All frames that the model saw of a window, side by side (JPEG)."""
        content = await asyncio.to_thread(service.frames, id)
        return Response(content, media_type="image/jpeg", headers=_FOREVER)

    @app.get("/api/video/{id}", response_class=Response)
    async def video(id: str, request: Request) -> Response:
        """The file that a window is of, as it is; ranges are answered."""
        _, _, row = await asyncio.to_thread(service.window, id)
        size = await asyncio.to_thread(media.size_of, row)
        return _ranged(request, size, media.mime(row), lambda part: media.read(row, part))

    @app.get("/api/clip/{id}", response_class=Response)
    async def clip(id: str, request: Request) -> Response:
        """A window as H.264 in MP4, for browsers that cannot play the file; ranges are answered."""
        content = await asyncio.to_thread(service.clip, id)

        def part(of: media.Range) -> Any:
            return iter([content[of.start : of.start + of.length]])

        return _ranged(request, len(content), "video/mp4", part)

    @app.post("/api/label")
    async def label(request: LabelRequest) -> Any:
        """Keep whether a result fits its query, for training."""
        try:
            await asyncio.to_thread(service.label, request)
        except (ValueError, OSError) as error:
            return _error(409, str(error))
        return {"kept": True}

    return app


def _ranged(request: Request, size: int, kind: str, read: Callable[[media.Range], Any]) -> Response:
    try:
        part = media.parse_range(request.headers.get("range"), size)
    except ValueError as error:
        response = _error(416, str(error))
        response.headers["Content-Range"] = f"bytes */{size}"
        return response
    whole = media.Range(0, size)
    given = part or whole
    headers = {"Accept-Ranges": "bytes", "Content-Length": str(given.length)}
    if part is not None:
        headers["Content-Range"] = f"bytes {part.start}-{part.start + part.length - 1}/{size}"
    return StreamingResponse(
        read(given), 206 if part is not None else 200, headers=headers, media_type=kind
    )


def _refusal(request: Request, token: str | None) -> Response | None:
    origin = request.headers.get("origin")
    host = request.headers.get("host", "")
    if origin is not None and origin.partition("://")[2] != host:
        return _error(403, "requests from other sites' pages are not answered")
    if token is None:
        # Another site's name that resolves to this machine (DNS rebinding).
        return (
            None
            if is_loopback(_host(host))
            else _error(403, f"{host} is not this machine's own name")
        )
    given = request.query_params.get("token")
    if given is not None and hmac.compare_digest(given.encode(), token.encode()):
        response = RedirectResponse(request.url.path or "/", 303)
        response.set_cookie(COOKIE, token, httponly=True, samesite="strict", max_age=30 * 86400)
        return response
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    shown = bearer if scheme.lower() == "bearer" else request.cookies.get(COOKIE, "")
    if hmac.compare_digest(shown.encode(), token.encode()):
        return None
    return _error(401, "open the address that serve.py printed, which ends in ?token=...")


def _host(header: str) -> str:
    """The host of a ``Host`` header, without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0] if ":" in header else header


def is_loopback(host: str) -> bool:
    """Whether a name or an address is a loopback address, which no other machine can reach."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _error(code: int, message: str) -> JSONResponse:
    return JSONResponse({"error": message}, code)
