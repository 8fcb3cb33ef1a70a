"""A stand-in for the Hub's dataset viewer, with its documented shapes and errors."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.services.standin import Fault, StandIn

LISTED = {
    "splits": {"dataset", "config"},
    "size": {"dataset", "config"},
    "parquet": {"dataset", "config"},
    "presidio-entities": {"dataset"},
    "statistics": {"dataset", "config", "split"},
    "first-rows": {"dataset", "config", "split"},
}
"""Parameters by endpoint: https://datasets-server.huggingface.co/openapi.json, version 1.0, read in November 2026."""

NOT_READY = Fault(
    status=500,
    body=b'{"error":"The server is busier than usual and the response is not ready yet. Please retry later."}',
    headers={"content-type": "application/json", "x-error-code": "ResponseNotReadyError"},
)
BROKEN = Fault(
    status=500,
    body=b'{"error":"Cannot load the dataset split (in streaming mode) to extract the first rows."}',
    headers={"content-type": "application/json", "x-error-code": "StreamingRowsError"},
)
NO_SCRIPT = Fault(
    status=501,
    body=b'{"error":"The dataset viewer doesn\'t support this dataset because it runs arbitrary Python code."}',
    headers={"content-type": "application/json", "x-error-code": "DatasetWithScriptNotSupportedError"},
)
NOT_AUTHENTICATED = Fault(
    status=401,
    body=b'{"error":"The dataset does not exist, or is not accessible without authentication (private or gated)."}',
    headers={"content-type": "application/json", "x-error-code": "ExternalUnauthenticatedError"},
)


class ViewerStandIn(StandIn):
    """``answers[(endpoint, dataset)]`` is served; an unknown dataset is 404, a missing parameter 422."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Any] = {}
        endpoints = ("splits", "size", "parquet", "statistics", "first-rows", "presidio-entities")
        super().__init__([Route(f"/{name}", self._answer) for name in endpoints])
        self.tokens: list[str] = []

    async def _answer(self, request: Request) -> Response:
        endpoint = request.url.path.strip("/")
        self.tokens.append(request.headers.get("authorization", ""))
        if unlisted := sorted(set(request.query_params) - LISTED[endpoint]):
            return JSONResponse({"error": f"Parameters {unlisted} are not listed"}, 400)
        needed = ["dataset", "config", "split"] if endpoint in ("statistics", "first-rows") else ["dataset"]
        for name in needed:
            if not request.query_params.get(name):
                error = {"error": f"Parameter '{name}' is required"}
                return JSONResponse(error, 422, headers={"x-error-code": "MissingRequiredParameter"})
        found = self.answers.get((endpoint, request.query_params["dataset"]))
        if found is None:
            error = {"error": "The dataset does not exist on the Hub."}
            return JSONResponse(error, 404, headers={"x-error-code": "DatasetNotFoundError"})
        return Response(json.dumps(found), media_type="application/json")

    def describe(
        self, dataset: str, rows: int, statistics: list[dict[str, Any]], first: list[dict[str, Any]]
    ) -> None:
        """One config ``default`` with one split ``train``."""
        where = {"dataset": dataset, "config": "default", "split": "train"}
        size = {
            **where,
            "num_rows": rows,
            "num_bytes_parquet_files": 4096,
            "num_bytes_memory": 9000,
            "num_columns": 1,
        }
        self.answers[("size", dataset)] = {
            "size": {"dataset": {"num_rows": rows}, "configs": [], "splits": [size]},
            "pending": [],
            "failed": [],
            "partial": False,
        }
        self.answers[("splits", dataset)] = {"splits": [where], "pending": [], "failed": []}
        self.answers[("parquet", dataset)] = {"parquet_files": [], "pending": [], "failed": [], "partial": False}
        self.answers[("statistics", dataset)] = {"num_examples": rows, "statistics": statistics, "partial": False}
        self.answers[("first-rows", dataset)] = {
            **where,
            "features": [],
            "rows": [{"row_idx": i, "row": row, "truncated_cells": []} for i, row in enumerate(first)],
            "truncated": False,
        }
