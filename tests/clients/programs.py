"""The real programs for scripts: built by cargo, started on loopback, ended by their process ids."""

import json
import os
import pathlib
import signal
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ["plimsoll-agent", "plimsoll-planner", "plimsoll-emulator", "plimsoll-fake-nvml"]
START_PATIENCE_S = 30
END_PATIENCE_S = 15


class Broken(Exception):
    """A program that can't be built, or that did not start."""


def build(*selections, release=False):
    """Name → path of the programs and of the fake NVML library, from cargo's own messages.

    A selection is a list of more arguments for cargo, such as `["--package", "plimsoll-common", "--example", "hdr_v2"]`.
    """
    paths = {}
    programs = [word for package in PACKAGES for word in ("--package", package)]
    for selection in (programs, *selections):
        cargo = ["cargo", "build", "--locked", "--message-format=json-render-diagnostics", *selection]
        cargo += ["--release"] if release else []
        done = subprocess.run(cargo, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise Broken("the build failed, see above")
        for line in done.stdout.splitlines():
            message = json.loads(line)
            if message["reason"] != "compiler-artifact":
                continue
            name = message["target"]["name"]
            if message["executable"]:
                paths[name] = pathlib.Path(message["executable"])
            elif "cdylib" in message["target"]["kind"]:
                paths[name] = pathlib.Path(next(file for file in message["filenames"] if file.endswith(".so")))
    return paths


class Programs:
    """Running programs and the folder of their logs and addresses."""

    def __init__(self, paths, folder):
        self.paths, self.folder, self.running = paths, folder, []

    def start(self, name, *arguments, **environment):
        """Starts a program with this environment beside ours; answers its process id and where it listens."""
        label = f"{len(self.running)}-{name}"
        address_file = self.folder / f"{label}.json"
        ours = {key: value for key, value in os.environ.items() if not key.startswith("PLIMSOLL_")}
        with open(self.folder / f"{label}.log", "w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [self.paths[name], "--address-file", address_file, *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=ours | environment,
            )
        self.running.append((label, process))
        deadline = time.monotonic() + START_PATIENCE_S
        while not address_file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise Broken(f"{name} did not start: {self.log(label)}")
            time.sleep(0.05)
        return process.pid, json.loads(address_file.read_text(encoding="utf-8"))

    def log(self, label):
        """The end of a program's log."""
        return (self.folder / f"{label}.log").read_text(encoding="utf-8")[-2000:]

    def stop(self):
        """Ends what was started, newest first; answers what did not end well."""
        bad = []
        for label, process in reversed(self.running):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                if process.wait(timeout=END_PATIENCE_S) != 0:
                    bad.append(f"{label} ended with {process.returncode}: {self.log(label)}")
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                bad.append(f"{label} did not end on SIGTERM: {self.log(label)}")
        self.running.clear()
        return bad
