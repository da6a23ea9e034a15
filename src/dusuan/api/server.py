"""Puts the API together."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import JSONResponse

from dusuan import __version__
from dusuan.api import (
    models,
    problems,
    routes_catalog,
    routes_centre,
    routes_files,
    routes_jobs,
    routes_money,
    routes_quotes,
    routes_tenants,
)
from dusuan.api.doorkeeper import Doorkeeper
from dusuan.api.edge import OPEN_PATHS, Edge
from dusuan.api.hooks import Hooks
from dusuan.app.context import Platform
from dusuan.store.reads import Reads

_ROUTERS = (
    routes_jobs.often,  # the router looks in this order
    routes_money.often,
    routes_centre.router,
    routes_tenants.router,
    routes_money.router,
    routes_jobs.router,
    routes_quotes.router,
    routes_catalog.router,
    routes_files.router,
)
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "Problem details (RFC 9457)",
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        },
    }
}
_HEALTH: dict[int | str, dict[str, Any]] = {
    **_PROBLEMS,
    503: {"description": "It does not work now", "content": {"application/json": {}}},
}
# What `Edge` demands, as the OpenAPI document says it.
_BEARER = {"type": "http", "description": "An API key: dk_…", "scheme": "bearer"}


class _App(FastAPI):
    """Its document says of every path which needs a key that it does."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        if self.openapi_schema is None:
            document = super().openapi()
            document["components"]["securitySchemes"] = {"HTTPBearer": _BEARER}
            for path in document["paths"].keys() - OPEN_PATHS:
                for operation in document["paths"][path].values():
                    operation["security"] = [{"HTTPBearer": []}]
        return super().openapi()


def create_app(platform: Platform, hooks: Hooks) -> FastAPI:
    """The API over `platform`, whose store is open."""
    app = _App(
        title="dusuan",
        version=__version__,
        description="Compute sold the way a utility sells electricity.",
        openapi_url=None,  # served below, behind a key
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
    )
    reads = Reads(platform.store.url)
    door = Doorkeeper(platform, reads)
    app.state.platform, app.state.hooks = platform, hooks
    app.state.door, app.state.reads = door, reads
    problems.install(app)
    for router in _ROUTERS:
        app.include_router(router, prefix="/v1", responses=_PROBLEMS)
    app.include_router(_plain_routes(app, hooks))
    app.add_middleware(Edge, platform=platform, door=door)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.reads.close()


def _plain_routes(app: FastAPI, hooks: Hooks) -> APIRouter:
    router = APIRouter()

    @router.get("/healthz", tags=["centre"], responses=_HEALTH)
    def healthz(response: Response) -> Mapping[str, Any]:
        """Whether the platform works. The only thing that needs no key."""
        health = hooks.healthy()
        response.status_code = 200 if health.get("status") == "ok" else 503
        return health

    @router.get("/openapi.json", include_in_schema=False)
    def openapi() -> JSONResponse:
        document = app.openapi()
        document["components"]["schemas"]["Problem"] = models.ProblemView.model_json_schema()
        return JSONResponse(document)

    return router
