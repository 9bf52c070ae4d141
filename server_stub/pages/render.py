# SPDX-License-Identifier: Apache-2.0
"""Templates into answers: all text escaped, nothing loaded from elsewhere, nothing kept by caches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi.responses import Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from edgefl._version import __version__
from edgefl.server_stub.pages import charts

_HERE = Path(__file__).parent
_KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
FRESH = {"cache-control": "no-store"}
GUARDED = {
    **FRESH,
    # Text of a device that slipped through as markup could still run nothing, load nothing, send nothing.
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

_templates = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.globals.update(release=__version__, swatch=charts.swatch)


def page(template: str, root: str, context: dict[str, Any]) -> Response:
    """A page made of a template.

    Args:
        root: what a proxy has put before the server's paths, without a slash at its end.
    """
    text = _templates.get_template(template).render(root=root, **context)
    return Response(text, media_type="text/html; charset=utf-8", headers=GUARDED)


def asset(name: str) -> Response:
    """A file of the pages, by a name from `ASSETS`."""
    data = (_HERE / "static" / name).read_bytes()
    headers = {"cache-control": "max-age=60", "x-content-type-options": "nosniff"}
    return Response(data, media_type=_KINDS[Path(name).suffix], headers=headers)


ASSETS = tuple(sorted(path.name for path in (_HERE / "static").iterdir()))
