#!/usr/bin/env python3
"""Has NVML clients that are not ours show the values of scenarios of the fake NVML library.

    python tests/clients/nvml_clients.py

Needs cargo and Python 3.11. nvidia-ml-py, gpustat and nvitop come from PyPI; nvidia-smi comes from Debian's non-free section
where apt-get and Debian's keys are there. All of it goes into target/clients and nothing is installed elsewhere. Prints PASS,
FAIL or SKIPPED for each client; the exit code is 1 if one failed.

What can't be fetched is SKIPPED, but FAIL where CI=true.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import venv

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "tests" / "clients"
CACHE = ROOT / "target" / "clients"
# Exact, so that a run next year checks the same.
PACKAGES = ["nvidia-ml-py==13.615.71", "gpustat==1.1.1", "nvitop==1.7.2"]
DEBIAN_KEYS = pathlib.Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# Values that no board has by itself.
UTILIZATION, MEMORY_MIB, POWER_W, CELSIUS, CLOCK_MHZ = 37, 12345, 321, 47, 1230
LOAD = f"""
    [load]
    utilization_percent = {{ const = {UTILIZATION} }}
    memory_used_mib = {{ const = {MEMORY_MIB} }}
    power_w = {{ const = {POWER_W} }}
    temperature_c = {{ const = {CELSIUS} }}
    sm_clock_mhz = {{ const = {CLOCK_MHZ} }}
"""
SPLIT = ["mig 0 on 3g.40gb 1 1g.10gb 4"]
# nvidia-smi of release 535 knows no recovery action.
BROKEN = ["ecc 2 uncorrected 5", "remap 2 3 1 pending", "throttle 4 hw_thermal,hw_slowdown 600"]
LOST = ["xid 3 79"]


class Failed(Exception):
    """What a client showed, or why it didn't."""


class Missing(Exception):
    """A client can't be had here."""


def run(arguments, **options):
    """The output of a command that is to succeed."""
    done = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)
    if done.returncode != 0:
        raise Failed(f"{pathlib.Path(arguments[0]).name} ended with {done.returncode}:\n{done.stdout.rstrip()}")
    return done.stdout


def shown(text, *values):
    """Each value must be in the text, which is told where one is not."""
    for value in values:
        if value not in text:
            raise Failed(f"{value!r} is not shown in:\n{text.rstrip()}")


def non_free_source():
    """This machine's own Debian source, with the component that holds NVIDIA's programs."""
    asked = ["apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI) $(CODENAME)", "Created-By: Packages"]
    for line in run(asked).splitlines():
        words = line.split()
        if len(words) == 4 and words[:2] == ["Debian", "Debian"] and "-" not in words[3]:
            return f"deb [signed-by={DEBIAN_KEYS}] {words[2]} {words[3]} non-free\n"
    raise Missing("apt knows no source of Debian itself; run apt-get update first")


def library():
    """The fake library, built."""
    cargo = ["cargo", "build", "--locked", "--package", "plimsoll-fake-nvml", "--lib"]
    cargo.append("--message-format=json-render-diagnostics")
    done = subprocess.run(cargo, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit("the build failed, see above")
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and "cdylib" in message["target"]["kind"]:
            return pathlib.Path(next(name for name in message["filenames"] if name.endswith(".so")))
    sys.exit("cargo told of no shared library")


class Node:
    """Runs clients against the library, by the name that they look for."""

    def __init__(self, folder, path):
        self.folder = folder
        (folder / "libnvidia-ml.so.1").symlink_to(path)

    def environment(self, commands=(), driver=None):
        """The environment of a client, with a scenario of its own in which these commands hold from the start."""
        text = 'extends = "hgx-h100-8"\n' + textwrap.dedent(LOAD)
        if commands:
            text += f"[[timeline]]\nat_s = 0\ndo = {json.dumps(list(commands))}\n"
        if driver:
            text += f'[driver]\nversion = "{driver}"\nnvml = "12.{driver}"\ncuda = 12020\n'
        scenario = self.folder / "scenario.toml"
        scenario.write_text(text, encoding="utf-8")
        ours = {key: value for key, value in os.environ.items() if not key.startswith("PLIMSOLL_")}
        return ours | {
            "LD_LIBRARY_PATH": str(self.folder), "PLIMSOLL_FAKE_NVML_SCENARIO": str(scenario),
            "TERM": "dumb", "COLUMNS": "100", "LC_ALL": "C.UTF-8",
        }


def python():
    """The programs of a Python with the clients."""
    folder = CACHE / "nvml-clients"
    ready = folder / "ready"
    if not ready.exists() or ready.read_text(encoding="utf-8") != "\n".join(PACKAGES):
        venv.create(folder, with_pip=True, clear=True)
        pip = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
        if subprocess.run(pip, check=False).returncode != 0:
            raise Missing("pip could not fetch " + ", ".join(PACKAGES))
        ready.write_text("\n".join(PACKAGES), encoding="utf-8")
    return folder / "bin"


def nvidia_smi():
    """Debian's nvidia-smi and its version, unpacked and not installed."""
    folder = CACHE / "nvidia-smi"
    program = folder / "usr/lib/nvidia/current/nvidia-smi"
    if not program.exists():
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb") and DEBIAN_KEYS.exists()):
            raise Missing("nvidia-smi comes from Debian, and apt-get, dpkg-deb or Debian's keys are not there")
        shutil.rmtree(folder, ignore_errors=True)
        for part in ["lists/partial", "cache/archives/partial"]:
            (folder / "apt" / part).mkdir(parents=True)
        (folder / "apt/sources.list").write_text(non_free_source(), encoding="utf-8")
        places = {
            "Dir::Etc::SourceList": folder / "apt/sources.list", "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": folder / "apt/lists", "Dir::Cache": folder / "apt/cache",
        }
        options = [word for key, value in places.items() for word in ("-o", f"{key}={value}")]
        try:
            run(["apt-get", *options, "update"])
            run(["apt-get", *options, "download", "nvidia-smi"], cwd=folder)
            run(["dpkg-deb", "--extract", next(folder.glob("nvidia-smi_*.deb")), folder])
        except (Failed, StopIteration) as fault:
            raise Missing(f"nvidia-smi could not be fetched from Debian: {fault}") from fault
    package = next(folder.glob("nvidia-smi_*.deb")).name
    return program, re.search(r"_(\d+(?:\.\d+)+)-", package).group(1)


def check_pynvml(node):
    """NVIDIA's own bindings, in detail, by a script of their own."""
    count = run([python() / "python", HERE / "pynvml_reads.py", node.folder]).count("\n")
    return f"{count - 1} values"


def check_gpustat(node):
    """Its JSON, and the same with a GPU that is lost."""
    gpustat = python() / "gpustat"
    told = json.loads(run([gpustat, "--json"], env=node.environment()))
    if len(told["gpus"]) != 8 or len({gpu["uuid"] for gpu in told["gpus"]}) != 8:
        raise Failed(f"not eight GPUs: {told}")
    wanted = {
        "name": "NVIDIA H100 80GB HBM3", "utilization.gpu": UTILIZATION, "memory.used": MEMORY_MIB, "memory.total": 81559,
        "temperature.gpu": CELSIUS, "power.draw": POWER_W, "enforced.power.limit": 700, "fan.speed": None, "processes": [],
    }
    for gpu in told["gpus"]:
        for key, value in wanted.items():
            if gpu[key] != value:
                raise Failed(f"GPU {gpu['index']}: {key} is {gpu[key]!r}, the scenario says {value!r}")
    lost = run([gpustat, "--no-color", "--no-header"], env=node.environment(LOST)).splitlines()
    if len(lost) != 8 or "lost" not in lost[3] or any("lost" in line for line in lost[:3] + lost[4:]):
        raise Failed("GPU 3 alone is lost, but:\n" + "\n".join(lost))
    return "8 GPUs; a lost one alone"


def check_nvitop(node):
    """Its table once, of whole GPUs and of one that is split."""
    nvitop = [python() / "nvitop", "--once", "--ascii"]
    table = run(nvitop, env=node.environment())
    shown(table, "Driver Version: 580.95.05", "CUDA Driver Version: 13.0")
    rows = [line for line in table.splitlines() if f"{POWER_W}W / 700W" in line]
    if len(rows) != 8:
        raise Failed(f"{len(rows)} GPUs with {POWER_W} W:\n{table}")
    for row in rows:
        shown(row, f"{CELSIUS}C", f"{MEMORY_MIB}MiB / 79.65GiB", f"{UTILIZATION}%")
    split = run(nvitop, env=node.environment(SPLIT))
    shown(split, "3g.40gb @ GI/CI: 1/0", "1g.10gb @ GI/CI: 7/0", "1g.10gb @ GI/CI:10/0", "39.82GiB", "10194MiB")
    return "8 GPUs; 5 MIG devices"


def check_nvidia_smi(node):
    """NVIDIA's own program: a query, MIG devices, errors, a lost GPU."""
    smi, driver = nvidia_smi()
    query = [
        "index", "name", "utilization.gpu", "memory.used", "memory.total", "power.draw", "power.limit", "temperature.gpu",
        "clocks.sm", "driver_version", "mig.mode.current",
    ]
    csv = [smi, f"--query-gpu={','.join(query)}", "--format=csv,noheader,nounits"]
    rows = run(csv, env=node.environment(driver=driver)).splitlines()
    memory, power = f"{MEMORY_MIB}, 81559", f"{POWER_W}.00, 700.00"
    wanted = f"NVIDIA H100 80GB HBM3, {UTILIZATION}, {memory}, {power}, {CELSIUS}, {CLOCK_MHZ}, {driver}, Disabled"
    if rows != [f"{index}, {wanted}" for index in range(8)]:
        raise Failed("not what the scenario says:\n" + "\n".join(rows))
    split = run([smi, "-L"], env=node.environment(SPLIT, driver))
    if len(re.findall(r"^  MIG (3g\.40gb|1g\.10gb)  .*\(UUID: MIG-[0-9a-f-]{36}\)$", split, re.MULTILINE)) != 5:
        raise Failed(f"not five MIG devices:\n{split}")
    broken = node.environment(BROKEN, driver)
    errors = re.sub(r" +", " ", run([smi, "-q", "-i", "2", "-d", "ECC,ROW_REMAPPER"], env=broken))
    shown(errors, "DRAM Uncorrectable : 5", "Correctable Error : 3", "Uncorrectable Error : 1", "Pending : Yes")
    slowed = re.sub(r" +", " ", run([smi, "-q", "-i", "4", "-d", "PERFORMANCE,CLOCK"], env=broken))
    shown(slowed, "HW Slowdown : Active", "HW Thermal Slowdown : Active", "SM : 600 MHz")
    shown(slowed, "HW Power Brake Slowdown : Not Active")
    lost = subprocess.run([smi, "-L"], env=node.environment(LOST, driver), capture_output=True, text=True, check=False)
    shown(lost.stdout + lost.stderr, "GPU is lost", "GPU 2: ", "GPU 4: ")
    return f"{driver}: 8 GPUs, 5 MIG devices, errors, throttling, a lost GPU"


def main():
    path, strict, failed = library(), os.environ.get("CI") == "true", False
    checks = {"pynvml": check_pynvml, "gpustat": check_gpustat, "nvitop": check_nvitop, "nvidia-smi": check_nvidia_smi}
    for name, check in checks.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                verdict = f"PASS {name}: {check(Node(pathlib.Path(folder), path))}"
            except Missing as reason:
                failed |= strict
                verdict = f"{'FAIL' if strict else 'SKIPPED'} {name}: {reason}"
            except Failed as reason:
                failed = True
                verdict = f"FAIL {name}: {reason}"
        print(verdict, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
