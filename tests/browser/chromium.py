"""A real Chromium without a window, driven through a pipe by the protocol of its developer tools.

It reaches addresses of this machine alone. https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["WITHIN_S", "Browser", "chromium"]

WITHIN_S = 60.0
INSTALL_S = 300.0
MARGIN_PX = 16
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-color-profile=srgb"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--remote-debugging-pipe", "--lang=en-GB"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@functools.cache
def chromium() -> str | None:
    """The browser's path, installed from Debian if need be; None where it cannot be had."""
    if (found := _found()) is not None:
        return found
    if os.geteuid() == 0 and shutil.which("apt-get"):
        install = Path(__file__).with_name("install.sh")
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([str(install)], stdout=subprocess.DEVNULL, timeout=INSTALL_S, check=False)
    return _found()


def _found() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One browser with one page; a context manager, which leaves neither processes nor files.

    Attributes:
        complaints: what the page logged as a warning or an error, and what it raised.
        asked: addresses that it asked for, in their order.
    """

    def __init__(self, binary: str, width: int = 1280, height: int = 900) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="edldist-browser-"))
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        # It reads commands from descriptor 3 and answers on 4; descriptors of ours have other numbers.
        script = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", binary, *OPTIONS, f"--user-data-dir={self._home}", "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"HOME": str(self._home), "TZ": "UTC"},
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._out, self._in = ours_out, ours_in
        self._rest = b""
        self._messages: deque[dict[str, Any]] = deque()
        self._number = 0
        self._session: str | None = None
        self.complaints: list[str] = []
        self.asked: list[str] = []
        try:
            self._open(width, height)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, and remove what it left."""
        with contextlib.suppress(OSError, RuntimeError, TimeoutError):
            self._session = None
            self.call("Browser.close")
        for descriptor in (self._out, self._in):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._home, ignore_errors=True)

    def _open(self, width: int, height: int) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable")
        self.size(width, height)

    # --- what a person does --------------------------------------------------------------------

    def go(self, address: str) -> None:
        """Open a page."""
        failed = self.call("Page.navigate", url=address).get("errorText")
        if failed:
            raise RuntimeError(f"{address}: {failed}")

    def size(self, width: int, height: int, scale: float = 1.0) -> None:
        """The window, in CSS pixels, and how many of a picture's each is."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )

    def media(self, **features: str) -> None:
        """What the page hears of the reader's wishes, as ``prefers_color_scheme="dark"``."""
        told = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=told)

    def press(self, key: str, shift: bool = False) -> None:
        """A key, by its name in browsers."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "End": 35, "Home": 36, "ArrowLeft": 37}.get(
            key, 39
        )
        text = {"Enter": "\r", " ": " "}.get(key)
        fields: dict[str, Any] = {
            "key": key,
            "code": key,
            "windowsVirtualKeyCode": code,
            "modifiers": 8 * shift,
        }
        self.call("Input.dispatchKeyEvent", type="keyDown", **fields, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **fields)

    def point(self, x: float, y: float) -> None:
        """Move the mouse there."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    # --- what there is to see ------------------------------------------------------------------

    def value(self, expression: str) -> Any:
        """What an expression comes to in the page; of a promise, in the end."""
        told = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in told:
            details = told["exceptionDetails"]
            raise RuntimeError(details.get("exception", {}).get("description") or details["text"])
        return told["result"].get("value")

    def until(self, expression: str, what: str) -> None:
        """Ask again and again, until an expression is truthy."""
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline:
            with contextlib.suppress(RuntimeError):  # the page is being replaced
                if self.value(f"!!({expression})"):
                    return
            time.sleep(0.02)
        raise AssertionError(f"{what} did not happen within {WITHIN_S} s; complaints: {self.complaints}")

    def picture(self, path: Path, down_to: str = "body", across: str = "body") -> None:
        """A picture of the page as PNG.

        Args:
            down_to: selects the last element of it.
            across: selects the element that is as wide as it.
        """
        size = "(({right, bottom}) => [right + scrollX, bottom + scrollY])"
        box = "(document.querySelector({}).getBoundingClientRect())"
        width, _ = self.value(size + box.format(json.dumps(across)))
        _, height = self.value(size + box.format(json.dumps(down_to)))
        height += MARGIN_PX * (down_to != across)
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        told = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(told["data"]))

    def accessible(self) -> list[dict[str, str]]:
        """What assistive software is told: role, name and description of each thing that is not ignored."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [
            {key: str(node.get(key, {}).get("value", "")) for key in ("role", "name", "description")}
            for node in nodes
            if not node.get("ignored")
        ]

    # --- the protocol --------------------------------------------------------------------------

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command, and its answer.

        Raises:
            RuntimeError: it was refused, or the browser has ended.
            TimeoutError: no answer came.
        """
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        answer = self._await(lambda told: told.get("id") == self._number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error'].get('message')}")
        result: dict[str, Any] = answer["result"]
        return result

    def _await(self, which: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + WITHIN_S
        while True:
            while self._messages:
                message = self._messages.popleft()
                if which(message):
                    return message
                self._note(message)
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([self._in], [], [], left_s)[0]:
                raise TimeoutError(f"the browser has not answered within {WITHIN_S} s")
            data = os.read(self._in, 1 << 20)
            if not data:
                raise RuntimeError("the browser has ended")
            *lines, self._rest = (self._rest + data).split(b"\0")
            self._messages.extend(map(json.loads, lines))

    def _note(self, event: dict[str, Any]) -> None:
        told = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                details = told["exceptionDetails"]
                self.complaints.append(str(details.get("exception", {}).get("description", details["text"])))
            case "Runtime.consoleAPICalled" if told["type"] in ("warning", "error", "assert"):
                self.complaints.append(" ".join(str(each.get("value")) for each in told["args"]))
            case "Log.entryAdded" if told["entry"]["level"] in ("warning", "error"):
                self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
            case "Network.requestWillBeSent":
                self.asked.append(told["request"]["url"])
