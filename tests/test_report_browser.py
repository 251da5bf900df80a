"""report.html in a real browser: nothing is fetched, nothing complained of, everything has words, nothing overflows.

Chromium is driven over its DevTools pipe (JSON messages between NUL bytes), so that nothing but the browser is needed.
"""

import base64
import fcntl
import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import graphs
import pytest
from runs import measure, write_images

from analyzer import report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (390, 1440)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on PATH")
pytest.importorskip("matplotlib")


class Page:
    """One tab; `call` is one DevTools command, `events` is what the tab reported so far."""

    def __init__(self, reading, writing):
        self.reading, self.writing, self.number, self.events, self.session = reading, writing, 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _receive(self):
        text = bytearray()
        while (byte := self.reading.read(1)) not in (b"\0", b""):
            text += byte
        assert text, "the browser has gone"
        message = json.loads(text)
        self.events.append(message)
        return message

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        self.writing.write(json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        self.writing.flush()
        while (answer := self._receive()).get("id") != self.number:
            pass
        assert "result" in answer, answer
        return answer["result"]

    def show(self, path, *, width, dark=False, media=""):
        """Load a file in a window of so many CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=Path(path).resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self._receive()

    def value(self, expression):
        """A JavaScript expression's value; the page itself holds no script."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self):
        """The whole page as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def seen(self, *methods):
        return [event["params"] for event in self.events if event.get("method") in methods]


@contextmanager
def tab(profile):
    """A tab of a browser of its own, which ends with the block."""
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
    command += ["--disable-background-networking", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
    low = [*os.pipe(), *os.pipe()]  # moved up, so that none of them is 3 or 4 already
    to_browser, writing, reading, from_browser = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in low)
    for end in low:
        os.close(end)

    def wire():  # the browser reads from 3 and writes to 4
        os.dup2(to_browser, 3)
        os.dup2(from_browser, 4)

    with (
        subprocess.Popen(command, preexec_fn=wire, close_fds=False, stderr=subprocess.DEVNULL) as process,
        open(reading, "rb") as answers,  # noqa: PTH123
        open(writing, "wb") as orders,  # noqa: PTH123
    ):
        os.close(to_browser)
        os.close(from_browser)
        try:
            yield Page(answers, orders)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report of two runs with names that are trouble on any page."""
    folder = tmp_path_factory.mktemp("report")
    write_images(folder / "images", 3)
    awkward = folder / "images" / ("<b>&'$x$" + "w" * 120 + ".png")
    (folder / "images" / "image_000.png").rename(awkward)
    paths = [graphs.convnet(folder / name)[0] for name in ("one", "another")]
    for number, path in enumerate(paths):
        measure(path, folder / "images", folder / f"run{number}")
    return report.write([folder / "run0", folder / "run1"], folder / "out")


@pytest.fixture(scope="module")
def page(written, tmp_path_factory):
    with tab(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overflows_and_nothing_is_complained_of(page, written, width, dark):
    page.show(written, width=width, dark=dark)
    inside, needed = page.value("['clientWidth', 'scrollWidth'].map(name => document.documentElement[name])")
    assert needed <= inside <= width < inside + 30  # less a scroll bar
    sizes = page.value("[...document.images].map(i => [i.complete && i.naturalWidth, i.alt.trim().length])")
    assert len(sizes) >= 6 + 4  # figures, and two worst cases a run
    assert all(wide > 0 and words > 0 for wide, words in sizes)
    assert page.seen("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded") == []
    asked = {request["request"]["url"].split(":")[0] for request in page.seen("Network.requestWillBeSent")}
    assert asked == {"file", "data"}
    assert len([r for r in page.seen("Network.requestWillBeSent") if r["request"]["url"].startswith("file:")]) == 1


def test_the_measurement_can_fail(page, tmp_path):
    """A page that does everything wrong is found out by the same means."""
    bad = tmp_path / "bad.html"
    bad.write_text("<p style='width: 2000px'>x</p><img src='gone.png'><script>console.error('no')</script>")
    page.show(bad, width=390)
    assert page.value("document.documentElement.scrollWidth") > 390
    assert page.seen("Runtime.consoleAPICalled")
    assert any("gone.png" in request["request"]["url"] for request in page.seen("Network.requestWillBeSent"))


def test_the_policy_keeps_scripts_and_the_network_out(page, written, tmp_path):
    hostile = tmp_path / "hostile.html"
    injected = "<script>document.title = 'run'</script><img src='https://example.invalid/x.png' alt='x'>"
    hostile.write_text(written.read_text().replace("<main>", f"<main>{injected}", 1))
    page.show(hostile, width=390)
    assert page.value("document.title") != "run"
    blocked = [entry["entry"]["text"] for entry in page.seen("Log.entryAdded")]
    assert any("script" in text for text in blocked)
    assert any("example.invalid" in text for text in blocked)
    assert page.seen("Network.responseReceived") != []


def test_colours_follow_the_scheme_and_print_is_light(page, written):
    ink = "getComputedStyle(document.body).backgroundColor"
    backgrounds = {}
    for dark in (False, True):
        page.show(written, width=1440, dark=dark)
        backgrounds[dark] = page.value(ink)
        assert (
            page.value("getComputedStyle(document.querySelector('.picture')).backgroundColor") == "rgb(255, 255, 255)"
        )
    assert backgrounds[False] == "rgb(255, 255, 255)" != backgrounds[True]
    page.show(written, width=800, dark=True, media="print")
    assert page.value(ink) == "rgb(255, 255, 255)"
