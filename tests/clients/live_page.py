#!/usr/bin/env python3
"""A real browser (headless Chromium) follows the agent's page: the script runs, the page changes by itself, and it keeps what
the reader has unfolded. Speaks the browser's debugging protocol over a pipe, so that nothing has to be installed but
Chromium, and every wait is bounded: the page's open event stream is never "done", which is what waiting for a load would
wait for.

    tests/clients/live_page.py http://127.0.0.1:9474/
    tests/clients/live_page.py http://127.0.0.1:9474/ --screenshot page.png --width 1400 --dark
"""

import argparse
import base64
import json
import os
import pathlib
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

PATIENCE_S = 60
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


# The browser reads commands from descriptor 3 and writes answers to 4; this stands before it and moves them there, by way of
# numbers that are not theirs.
AT_3_AND_4 = """
import os, sys
ours = [int(fd) for fd in sys.argv[1:3]]
for place, fd in enumerate(ours):
    os.dup2(fd, 30 + place)
for place in (0, 1):
    os.dup2(30 + place, 3 + place)
os.execv(sys.argv[3], sys.argv[3:])
"""


class NoBrowser(Exception):
    """There is none here."""


class Wrong(Exception):
    """What the page does not do."""


class Browser:
    """A headless Chromium with one tab, at the other end of a pipe."""

    def __init__(self, width=1400, height=1000):
        program = next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            raise NoBrowser(f"none of {', '.join(NAMES)} is installed")
        self.profile = tempfile.TemporaryDirectory()
        commands, self.commands = os.pipe()
        self.answers, answers = os.pipe()
        self.process = subprocess.Popen(
            [
                sys.executable, "-c", AT_3_AND_4, str(commands), str(answers), program, "--headless=new", "--no-sandbox",
                "--disable-gpu", "--no-first-run", "--disable-extensions", "--disable-dev-shm-usage",
                f"--window-size={width},{height}", "--remote-debugging-pipe", f"--user-data-dir={self.profile.name}",
                "about:blank",
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(commands, answers),
            start_new_session=True,
        )
        os.close(commands)
        os.close(answers)
        self.number, self.rest, self.session, self.troubles = 0, b"", None, []
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                self.call(f"{domain}.enable")
        except Wrong:
            self.close()
            raise

    def close(self):
        """Ends the browser and all of its processes."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        os.close(self.commands)
        os.close(self.answers)
        self.profile.cleanup()

    def call(self, method, **parameters):
        """One command, and its answer."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE_S
        while True:
            answer = self.receive(deadline)
            self.note(answer)
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise Wrong(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def receive(self, deadline):
        """The next message."""
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.answers], [], [], max(0, deadline - time.monotonic()))
            chunk = os.read(self.answers, 1 << 16) if ready else b""
            if not chunk:
                raise Wrong(f"the browser does not answer within {PATIENCE_S} s")
            self.rest += chunk
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def note(self, message):
        """Exceptions and what the browser complains of: scripts or styles that the page's policy forbids, for one."""
        if message.get("method") == "Runtime.exceptionThrown":
            self.troubles.append(message["params"]["exceptionDetails"]["text"])
        if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.troubles.append(message["params"]["entry"]["text"])

    def value(self, expression):
        """What an expression is in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in result:
            raise Wrong(f"{expression}: {result['exceptionDetails']['text']}")
        return result["result"].get("value")

    def until(self, what, expression):
        """Asks until an expression holds; its value."""
        deadline = time.monotonic() + PATIENCE_S
        while not (value := self.value(expression)):
            if time.monotonic() > deadline:
                told = self.value("document.getElementById('live')?.textContent")
                raise Wrong(f"{what} did not come true within {PATIENCE_S} s; the page says {told!r}, the browser {self.troubles}")
            time.sleep(0.1)
        return value

    def open(self, url, dark=False):
        """Goes to a page."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call("Page.navigate", url=url)
        self.until("a page with content", "!!document.querySelector('main h1')")

    def screenshot(self, file):
        """The whole page as a picture."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        file.write_bytes(base64.b64decode(picture["data"]))


TEXT = "document.querySelector('main').innerText"
LIVE = "document.getElementById('live').textContent"


def follows(browser, url):
    """The page is live: it changes by itself, and keeps what is unfolded and where the reader is. What to say of it."""
    browser.open(url)
    browser.until("a live page", f"{LIVE} === 'live'")
    unfold = "(() => { const it = document.querySelector('details'); it.open = true; window.mark = it; return it.id; })()"
    unfolded = browser.value(unfold)
    browser.value("window.scrollTo(0, 120)")
    scrolled = browser.value("window.scrollY")
    before, began = browser.value(TEXT), time.monotonic()
    # The mark tells that what is there now is not what was unfolded, but what came in its place.
    browser.until("another content", f"!window.mark.isConnected && {TEXT} !== {json.dumps(before)}")
    took = time.monotonic() - began
    if not browser.value(f"document.getElementById({json.dumps(unfolded)}).open"):
        raise Wrong("what was unfolded is folded again")
    if browser.value("window.scrollY") != scrolled:
        raise Wrong("the page jumped")
    if browser.troubles:
        raise Wrong(f"the browser complains: {browser.troubles}")
    return f"live after {took:.1f} s, unfolded and scrolled as before, nothing in the console"


def tells_its_end(browser):
    """The agent has ended: the page says that its values are old."""
    browser.until("a page that says so", f"{LIVE}.includes('old')")
    return f"after the agent's end: {browser.value(LIVE)!r}"


def comes_back(browser):
    """The agent is there again: the page is live without being asked."""
    browser.until("a page that is live again", f"{LIVE} === 'live'")
    return "live again by itself after the agent's return"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--screenshot", type=pathlib.Path, help="write a picture of the page here")
    parser.add_argument("--width", type=int, default=1400)
    parser.add_argument("--dark", action="store_true", help="the picture in the dark colours")
    arguments = parser.parse_args()
    browser = Browser(arguments.width)
    try:
        print(follows(browser, arguments.url))
        if arguments.screenshot:
            browser.open(arguments.url, arguments.dark)
            browser.screenshot(arguments.screenshot)
            print(f"{arguments.screenshot}: {arguments.screenshot.stat().st_size} bytes")
    finally:
        browser.close()


if __name__ == "__main__":
    try:
        main()
    except (NoBrowser, Wrong) as reason:
        sys.exit(str(reason))
