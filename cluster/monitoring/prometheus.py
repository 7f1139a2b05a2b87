"""Asks a Prometheus for series."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.errors import UserError

TIMEOUT_SECONDS = 30.0


class Line(NamedTuple):
    """One series: its labels, times in seconds since 1970 (N,), and values (N,)."""

    labels: dict[str, str]
    times: NDArray[np.float64]
    values: NDArray[np.float64]


def query_range(url: str, expression: str, start: float, end: float, step: float) -> list[Line]:
    """An expression's series between two times.

    Args:
        url: of the Prometheus.
        expression: in PromQL.
        start: seconds since 1970.
        end: likewise.
        step: seconds between two values.

    Raises:
        UserError: it does not answer, or not as a Prometheus does.
    """
    data = ask(url, "query_range", query=expression, start=f"{start:.3f}", end=f"{end:.3f}", step=f"{step:.3f}")
    return [_line(series) for series in data["result"]]


def ask(url: str, what: str, **parameters: str) -> Any:
    """The data of one call of Prometheus' HTTP API.

    Raises:
        UserError: it does not answer, or not as a Prometheus does.
    """
    address = f"{url.rstrip('/')}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS) as answer:
            content = json.load(answer)
    except urllib.error.HTTPError as error:
        raise UserError(f"{url}: {_reason(error)}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{url}: no Prometheus answers there ({error})") from None
    if not isinstance(content, dict) or content.get("status") != "success":
        raise UserError(f"{url}: what answers there is no Prometheus")
    return content["data"]


def _line(series: dict[str, Any]) -> Line:
    samples = np.array([(float(time), float(value)) for time, value in series["values"]])
    return Line(series["metric"], samples[:, 0], samples[:, 1])


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError):
        return f"no Prometheus answers there ({error})"
