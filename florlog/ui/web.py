"""The browser served to a web browser on this machine: ``florlog inspect --web``.

Whoever can open the page can run code (hindsight evaluates what is typed).  So the server listens on the
loopback address only, requires the secret of the printed link (kept as a cookie afterwards), and refuses
requests that another site's page sends, whose Host or Origin is not this server.  The page is kept from asking
other sites for anything.
"""

from __future__ import annotations

import hmac
import secrets
import shlex
import sys
from pathlib import Path
from typing import Any

from florlog.errors import FlorlogError
from florlog.programs.permission import Trust

HOST = "127.0.0.1"
_PRIVATE = {
    # The page of textual-serve asks another site for a font, and the page's address contains the secret.
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' data: blob:; connect-src 'self' ws:",
    "Referrer-Policy": "no-referrer",
}


def command(store: Path, run: str | None, trust: Trust) -> str:
    """The command line that textual-serve starts for each page."""
    words = [sys.executable, "-m", "florlog", "inspect", *([run] if run else []), "--store", str(store)]
    return shlex.join([*words, *(word for trusted in trust.runs for word in ("--trust", trusted))])


def guard(secret: str, port: int) -> Any:
    """The aiohttp middleware that lets in only who has the secret, and no other site's page."""
    from aiohttp import web

    own = {f"{host}:{port}" for host in (HOST, "localhost")}

    @web.middleware
    async def check(request: Any, handler: Any) -> Any:
        origin = request.headers.get("Origin")
        if request.host not in own or (origin is not None and origin.partition("://")[2] not in own):
            raise web.HTTPForbidden(text="florlog inspect is for pages of its own")
        given = request.query.get("secret", request.cookies.get("florlog", ""))
        if not hmac.compare_digest(given.encode(), secret.encode()):
            raise web.HTTPForbidden(text="open the link that florlog inspect --web printed")
        response = await handler(request)
        if not response.prepared:
            response.headers.update(_PRIVATE)
        if "secret" in request.query and not response.prepared:
            response.set_cookie("florlog", secret, httponly=True, samesite="Strict")
        return response

    return check


def serve(store: Path, run: str | None, port: int, trust: Trust) -> None:
    """Serve until interrupted.  Raises `FlorlogError` when textual-serve is not installed."""
    try:
        from textual_serve.server import Server
    except ImportError:
        raise FlorlogError("--web needs textual-serve: pip install 'florlog[inspect]'") from None
    secret = secrets.token_urlsafe(16)

    class Guarded(Server):  # type: ignore[misc,unused-ignore]
        async def _make_app(self) -> Any:
            app = await super()._make_app()
            app.middlewares.append(guard(secret, port))
            return app

    print(
        f"florlog: open http://{HOST}:{port}/?secret={secret}   (ctrl+c ends it)", file=sys.stderr, flush=True
    )
    Guarded(command(store, run, trust), host=HOST, port=port, title="florlog").serve()
