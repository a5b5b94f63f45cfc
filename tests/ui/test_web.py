"""``florlog inspect --web`` in a real browser: a headless Chromium, driven by its debugging protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.inspect.stores import train

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-port=0", "--window-size=1200,800",
)  # fmt: skip
NOTHING = urllib.request.ProxyHandler({})


@pytest.fixture(scope="module")
def link(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A served store, as the link that was printed."""
    store = tmp_path_factory.mktemp("web") / "store"
    train(store)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "florlog",
        "inspect",
        "--web",
        "--port",
        str(port),
        "--store",
        str(store),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        printed = server.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/\?secret=\S+", printed)
        assert found is not None, printed
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None
            time.sleep(0.1)
        yield found[0]
        server.send_signal(signal.SIGINT)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def status(url: str, **headers: str) -> int:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.build_opener(NOTHING).open(request, timeout=120) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_only_this_machine_and_only_the_link_that_was_printed_are_served(link: str) -> None:
    assert status(link) == 200
    bare = link.partition("?")[0]
    assert status(bare) == 403
    assert status(bare + "?secret=guess") == 403
    assert status(link, Host="attacker.example") == 403
    assert status(link, Origin="http://attacker.example") == 403
    port = int(bare.rsplit(":", 1)[1].strip("/"))
    for address in {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}:
        if not str(address).startswith("127."):
            with socket.socket() as other:
                assert other.connect_ex((str(address), port)) != 0


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
def test_a_web_browser_shows_the_same_application_and_its_keys_reach_it(link: str) -> None:
    pytest.importorskip("aiohttp")
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        assert CHROMIUM is not None
        chromium = subprocess.Popen(
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            asyncio.run(asyncio.wait_for(_look(link, Path(profile)), 400))
        finally:
            os.killpg(chromium.pid, signal.SIGKILL)
            chromium.wait()


async def _look(link: str, profile: Path) -> None:
    import aiohttp

    active = profile / "DevToolsActivePort"
    while not active.exists() or "\n" not in active.read_text():
        await asyncio.sleep(0.1)
    port = active.read_text().split()[0]
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            page = next(tab for tab in await answer.json() if tab["type"] == "page")
        async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as socket_:
            await Page(socket_).look(link)


class Page:
    """A tab: what its web socket receives is drawn on a terminal, as the page draws it."""

    def __init__(self, socket_: Any) -> None:
        import pyte

        self.socket = socket_
        self.number = 0
        self.answers: dict[int, Any] = {}
        self.requested: dict[str, str] = {}
        self.screen = pyte.Screen(200, 60)
        self.stream = pyte.ByteStream(self.screen)

    async def look(self, link: str) -> None:
        for domain in ("Network", "Page", "Runtime"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=link)
        await self.until(lambda: self.has("looked-at-", "complete"))
        for kind in ("mousePressed", "mouseReleased"):  # so that the page gets the keys
            await self.call("Input.dispatchMouseEvent", type=kind, x=600, y=400, button="left", clickCount=1)
        await self.key("Enter", 13, "\r")
        await self.until(lambda: self.has("RunBegin", "12 iterations"))
        await self.key("s", 83, "s")
        await self.until(lambda: self.has("run.log(loss=loss, lr=lr)"))
        shown = await self.call(
            "Runtime.evaluate",
            expression="document.querySelector('.textual-terminal .xterm-screen') !== null",
        )
        assert shown["result"]["value"] is True
        picture = await self.call("Page.captureScreenshot", format="png")
        assert len(picture["data"]) > 20_000  # text, not one colour
        own = link.partition("?")[0]
        foreign = [
            url
            for url in self.requested.values()
            if not url.startswith((own, own.replace("http", "ws"), "data:"))
        ]
        assert foreign == []  # nobody else receives any of it

    def has(self, *texts: str) -> bool:
        display = "\n".join(self.screen.display)
        return all(text in display for text in texts)

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            await self.receive()

    async def key(self, name: str, code: int, text: str) -> None:
        for kind in ("keyDown", "keyUp"):
            given = {"text": text} if kind == "keyDown" else {}
            await self.call(
                "Input.dispatchKeyEvent", type=kind, key=name, windowsVirtualKeyCode=code, **given
            )

    async def call(self, method: str, **params: Any) -> Any:
        self.number += 1
        mine = self.number
        await self.socket.send_json({"id": mine, "method": method, "params": params})
        await self.until(lambda: mine in self.answers)
        answer = self.answers.pop(mine)
        assert "error" not in answer, answer
        return answer["result"]

    async def receive(self) -> None:
        message = json.loads((await self.socket.receive()).data)
        if "id" in message:
            self.answers[message["id"]] = message
        elif message["method"] == "Network.webSocketFrameReceived":
            frame = message["params"]["response"]
            if frame["opcode"] == 2:
                self.stream.feed(base64.b64decode(frame["payloadData"]))
        elif message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
            params = message["params"]
            self.requested[params["requestId"]] = (
                params["request"]["url"] if "request" in params else params["url"]
            )
        elif message["method"] == "Network.loadingFailed" and message["params"].get("blockedReason") == "csp":
            del self.requested[message["params"]["requestId"]]  # it was not sent
