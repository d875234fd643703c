"""What the page asks for, and who may ask.

Only this machine's browser, with the address that the command printed: the server listens on 127.0.0.1, every
path begins with a random token, `Host` must be its own (another name could be made to point here), and so
must `Origin`, which must not lack where something is changed. Images are numbers, so no path is ever sent.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from nbs_env.common.errors import CheckpointError, DataError, RunError
from nbs_env.desk.label.folder import Conflict, Folder, Outside, encoded
from nbs_env.desk.label.looking import Looking
from nbs_env.desk.label.training import Training

PAGE = ("page.html", "page.css", "page.js", "view.js", "item.js", "panel.js", "mask.js", "tools.js")
"""The files of the page; the first has the address "/"."""
KINDS = {"html": "text/html; charset=utf-8", "css": "text/css", "js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
SMALL = 2**20
"""Bytes of a request that changes no mask."""
THUMB = 160
"""Side in pixels of a thumbnail."""


class Guard:
    """Lets only those in who know the token, ask for this host, and come from its page.

    HTTP is all that it understands: the server is to be started with `lifespan="off"` and `ws="none"`.

    Args:
        app: what is guarded.
        token: the first part of every path.
        port: where the server listens.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self.app, self.token = app, token.encode()
        self.hosts = {f"{name}:{port}".encode() for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, without the token, or refuse it."""
        headers = scope["headers"]
        hosts = [value for name, value in headers if name == b"host"]
        origins = [value for name, value in headers if name == b"origin"]
        first, _, rest = scope["path"].removeprefix("/").partition("/")
        changes = scope["method"] not in ("GET", "HEAD")
        known = len(hosts) == 1 and hosts[0] in self.hosts
        at_home = origins in [[b"http://" + host] for host in self.hosts] or not (origins or changes)
        if not known or not at_home:
            await Response("refused", 403, HEADERS)(scope, receive, send)
        elif not secrets.compare_digest(first.encode(), self.token):
            await Response("refused", 404, HEADERS)(scope, receive, send)
        else:
            await self.app({**scope, "path": f"/{rest}", "raw_path": None}, receive, send)


class Desk:
    """The answers; see `routes`."""

    def __init__(self, folder: Folder, training: Training, looking: Looking) -> None:
        self.folder, self.training, self.looking = folder, training, looking

    def routes(self) -> list[Route]:
        """What can be asked for."""
        routes = [Route(f"/{name}", self.page) for name in ("", *PAGE[1:])]
        for path, method, answer in (
            ("names", "GET", self.names),
            ("state", "GET", self.state),
            ("next", "POST", self.next),
            ("images/{number:int}", "GET", self.image),
            ("thumbs/{number:int}", "GET", self.thumb),
            ("masks/{number:int}", "GET", self.mask),
            ("masks/{number:int}", "PUT", self.paint),
            ("masks/{number:int}", "DELETE", self.remove),
            ("predictions/{number:int}/{round:int}/{what}", "GET", self.prediction),
            ("train/{action}", "POST", self.train),
        ):
            routes.append(Route(f"/api/{path}", _answered(answer), methods=[method]))
        return routes

    def page(self, request: Request) -> Response:
        """A file of the page."""
        name = request.url.path.rsplit("/", 1)[-1] or PAGE[0]
        content = files("nbs_env.desk.label").joinpath(name).read_bytes()
        return Response(content, 200, HEADERS, KINDS[name.split(".")[1]])

    def names(self, request: Request, body: bytes) -> Response:
        """The folder's name and those of all images, whose numbers are their places."""
        names = [file.name for file in self.folder.files]
        return JSONResponse({"folder": str(self.folder.home), "names": names})

    def state(self, request: Request, body: bytes) -> Response:
        """Which images are labelled (does the mask mark a defect?), and how training and looking get on."""
        numbers = sorted(self.folder.numbers[stem] for stem in self.folder.masks())
        return JSONResponse(
            {
                "labelled": {number: self.folder.defect(number) for number in numbers},
                "good": self.folder.good,
                "rounds": self.training.rounds(),
                "training": self.training.state(),
                "looking": self.looking.state(),
                "changes": self.looking.changes(),
            }
        )

    def next(self, request: Request, body: bytes) -> Response:
        """The next images, given those that were `passed`."""
        asked = json.loads(body)
        passed, count = {int(number) for number in asked["passed"]}, min(int(asked["count"]), 100)
        return JSONResponse(self.looking.next(passed, count))

    def image(self, request: Request, body: bytes) -> Response:
        """An image, as a browser shows it."""
        content, kind = self.folder.shown(self._number(request))
        self.looking.begin.set()
        return Response(content, media_type=kind)

    def thumb(self, request: Request, body: bytes) -> Response:
        """A small picture of an image."""
        picture = Image.fromarray(self.folder.pixels(self._number(request)))
        picture.thumbnail((THUMB, THUMB), reducing_gap=2)
        return Response(encoded(picture, "JPEG"), 200, {"Cache-Control": "max-age=3600"}, "image/jpeg")

    def mask(self, request: Request, body: bytes) -> Response:
        """A mask; its version is the header `X-Version`. Nothing (204) where there is none."""
        number = self._number(request)
        mask, version = self.folder.read(number)
        width, height = self.folder.size(number)
        headers = {"X-Version": version, "X-Size": f"{width} {height}"}
        return _mask(mask, headers) if mask is not None else Response(b"", 204, headers)

    def paint(self, request: Request, body: bytes) -> Response:
        """Put pixels into a mask: one bit each, row by row, for the box given in the address."""
        query, number = request.query_params, self._number(request)
        left, top, width, height = (int(query[name]) for name in ("left", "top", "width", "height"))
        own_width, own_height = self.folder.size(number)
        if not (0 < width <= own_width and 0 < height <= own_height and len(body) == -(-width * height // 8)):
            raise HTTPException(400, f"{len(body)} bytes for {width}x{height} pixels")
        bits = np.unpackbits(np.frombuffer(body, np.uint8), count=width * height)
        box = left, top, width, height
        version = self.folder.paint(number, query["version"], box, bits.reshape(height, width).astype(bool))
        return JSONResponse({"version": version})

    def remove(self, request: Request, body: bytes) -> Response:
        """Make an image unlabelled."""
        return JSONResponse(
            {"version": self.folder.remove(self._number(request), request.query_params["version"])}
        )

    def prediction(self, request: Request, body: bytes) -> Response:
        """What a round's detector says: `heat`, its probabilities, or `mask`, in the image's own size."""
        number, what = self._number(request), request.path_params["what"]
        found = self.looking.judgement(number, request.path_params["round"])
        headers = {"X-Score": f"{found.scores[0]:.3f}", "X-Bad": str(int(found.bad[0]))}
        if what == "heat":
            levels = (found.probabilities[0].clip(0, 1) * 255).round().astype(np.uint8)
            return Response(encoded(Image.fromarray(levels), "PNG"), 200, headers, "image/png")
        from nbs_env.detect.detector import resize_mask_map

        width, height = self.folder.size(number)
        return _mask(resize_mask_map(found.masks[0], height, width), headers)

    def train(self, request: Request, body: bytes) -> Response:
        """Start, cancel or resume a round."""
        action = request.path_params["action"]
        if action not in ("start", "cancel", "resume"):
            raise HTTPException(404)
        getattr(self.training, action)()
        return JSONResponse(self.training.state())

    def _number(self, request: Request) -> int:
        number = request.path_params["number"]
        if not 0 <= number < len(self.folder.files):
            raise HTTPException(404, f"there is no image {number}")
        return int(number)

    def limit(self, request: Request) -> int:
        """Bytes that the body of a request may have: a bit for every pixel, and no more."""
        if request.method != "PUT":
            return SMALL if request.method == "POST" else 0
        width, height = self.folder.size(self._number(request))
        return -(-width * height // 8)


def _mask(mask: np.ndarray, headers: dict[str, str]) -> Response:
    """A bit a pixel, row by row."""
    return Response(np.packbits(mask).tobytes(), 200, headers, "application/octet-stream")


def _answered(answer: Callable[[Request, bytes], Response]) -> Callable[[Request], Awaitable[Response]]:
    """Read the body, up to the limit; answer in a thread; make errors one line of JSON."""
    desk: Desk = answer.__self__  # type: ignore[attr-defined]

    async def endpoint(request: Request) -> Response:
        try:
            limit = await run_in_threadpool(desk.limit, request)
            body = await _body(request, limit)
            response = await run_in_threadpool(answer, request, body)
        except Conflict:
            version = desk.folder.version(request.path_params["number"])
            response = _error(409, "the mask was changed elsewhere", version=version)
        except Outside as error:
            response = _error(403, str(error))
        except (DataError, CheckpointError, RunError) as error:
            response = _error(422, str(error))
        except OSError as error:
            response = _error(507, str(error))
        except HTTPException as error:
            response = _error(error.status_code, error.detail)
        except (KeyError, TypeError, ValueError):
            response = _error(400, "not understood")
        except Exception as error:  # the page says it; the command would only scroll by
            response = _error(500, f"{type(error).__name__}: {error}")
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return endpoint


def _error(status: int, message: str, **more: Any) -> Response:
    return JSONResponse({"error": message} | more, status)


async def _body(request: Request, limit: int) -> bytes:
    """The body of a request.

    Raises:
        HTTPException: it is longer than `limit`; the rest is not read.
    """
    body = bytearray()
    too_long = HTTPException(413, f"more than {limit} bytes")
    if int(request.headers.get("content-length", 0)) > limit:
        raise too_long
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise too_long
    except ClientDisconnect:
        raise asyncio.CancelledError from None
    return bytes(body)


def make_app(desk: Desk, token: str, port: int) -> ASGIApp:
    """The whole application."""
    return Guard(Starlette(routes=desk.routes()), token, port)
