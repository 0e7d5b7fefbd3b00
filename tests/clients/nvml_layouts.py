#!/usr/bin/env python3
"""Holds the fake NVML library against NVIDIA's published headers: layouts, numbers, names.

    python tests/clients/nvml_layouts.py

Needs cargo, Python 3.11 and a C compiler (`CC`, otherwise `cc`). The headers come from PyPI's nvidia-nvml-dev and
nvidia-nvml-dev-cu12 into target/clients; they are not part of this repository. For each header a C file of static assertions
is compiled: what the example `layouts` of plimsoll-fake-nvml prints, and the numbers below. Then every function that the
library exports must be declared. Prints PASS, FAIL or SKIPPED for each header; the exit code is 1 if one failed.

What can't be fetched is SKIPPED, but FAIL where CI=true.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import venv

ROOT = pathlib.Path(__file__).resolve().parents[2]
CACHE = ROOT / "target" / "clients"
# Exact, so that a run next year checks the same.
PACKAGES = ["nvidia-nvml-dev==13.5.37", "nvidia-nvml-dev-cu12==12.9.79"]
# nvidia-smi asks for it; no header has it.
PRIVATE = {"nvmlInternalGetExportTable"}

# The numbers that the library's source has as literals.
NUMBERS = {
    "NVML_ERROR_UNINITIALIZED": 1,
    "NVML_ERROR_INVALID_ARGUMENT": 2,
    "NVML_ERROR_NOT_SUPPORTED": 3,
    "NVML_ERROR_NO_PERMISSION": 4,
    "NVML_ERROR_NOT_FOUND": 6,
    "NVML_ERROR_INSUFFICIENT_SIZE": 7,
    "NVML_ERROR_DRIVER_NOT_LOADED": 9,
    "NVML_ERROR_TIMEOUT": 10,
    "NVML_ERROR_GPU_IS_LOST": 15,
    "NVML_ERROR_RESET_REQUIRED": 16,
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": 18,
    "NVML_ERROR_NO_DATA": 21,
    "NVML_ERROR_INSUFFICIENT_RESOURCES": 23,
    "NVML_ERROR_ARGUMENT_VERSION_MISMATCH": 25,
    "NVML_ERROR_NOT_READY": 27,
    "NVML_ERROR_GPU_NOT_FOUND": 28,
    "nvmlEventTypeSingleBitEccError": 0x1,
    "nvmlEventTypeDoubleBitEccError": 0x2,
    "nvmlEventTypeXidCriticalError": 0x8,
    "nvmlEventMigConfigChange": 0x100,
    "nvmlEventTypeSingleBitEccErrorStorm": 0x200,
    "nvmlEventTypeDramRetirementEvent": 0x400,
    "nvmlEventTypeDramRetirementFailure": 0x800,
    "nvmlEventTypeNonFatalPoisonError": 0x1000,
    "nvmlEventTypeFatalPoisonError": 0x2000,
    "nvmlEventTypeGpuUnavailableError": 0x4000,
    "nvmlEventTypeGpuRecoveryAction": 0x8000,
    "nvmlClocksEventReasonGpuIdle": 0x1,
    "nvmlClocksEventReasonApplicationsClocksSetting": 0x2,
    "nvmlClocksEventReasonSwPowerCap": 0x4,
    "nvmlClocksThrottleReasonHwSlowdown": 0x8,
    "nvmlClocksEventReasonSyncBoost": 0x10,
    "nvmlClocksEventReasonSwThermalSlowdown": 0x20,
    "nvmlClocksThrottleReasonHwThermalSlowdown": 0x40,
    "nvmlClocksThrottleReasonHwPowerBrakeSlowdown": 0x80,
    "nvmlClocksEventReasonDisplayClockSetting": 0x100,
    "NVML_FI_DEV_RETIRED_SBE": 29,
    "NVML_FI_DEV_RETIRED_DBE": 30,
    "NVML_FI_DEV_RETIRED_PENDING": 31,
    "NVML_FI_DEV_PERF_POLICY_POWER": 74,
    "NVML_FI_DEV_PERF_POLICY_THERMAL": 75,
    "NVML_FI_DEV_MEMORY_TEMP": 82,
    "NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION": 83,
    "NVML_FI_DEV_NVLINK_LINK_COUNT": 91,
    "NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX": 138,
    "NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX": 139,
    "NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_TX": 140,
    "NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_RX": 141,
    "NVML_FI_DEV_REMAPPED_COR": 142,
    "NVML_FI_DEV_REMAPPED_UNC": 143,
    "NVML_FI_DEV_REMAPPED_PENDING": 144,
    "NVML_FI_DEV_REMAPPED_FAILURE": 145,
    "NVML_FI_DEV_NVLINK_ERROR_DL_REPLAY": 161,
    "NVML_FI_DEV_NVLINK_ERROR_DL_RECOVERY": 162,
    "NVML_FI_DEV_NVLINK_ERROR_DL_CRC": 163,
    "NVML_FI_DEV_NVLINK_GET_SPEED": 164,
    "NVML_FI_DEV_NVLINK_GET_STATE": 165,
    "NVML_FI_DEV_NVLINK_GET_VERSION": 166,
    "NVML_FI_DEV_C2C_LINK_COUNT": 170,
    "NVML_FI_DEV_POWER_AVERAGE": 185,
    "NVML_FI_DEV_POWER_INSTANT": 186,
    "NVML_FI_DEV_POWER_CURRENT_LIMIT": 190,
    "NVML_FI_DEV_PCIE_COUNT_TX_BYTES": 197,
    "NVML_FI_DEV_PCIE_COUNT_RX_BYTES": 198,
    "NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES": 202,
    "NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES": 204,
    "NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_SUCCESSFUL_EVENTS": 213,
    "NVML_FI_DEV_NVLINK_COUNT_LINK_RECOVERY_EVENTS": 215,
    "NVML_FI_DEV_RESET_STATUS": 226,
    "NVML_FI_DEV_DRAIN_AND_RESET_STATUS": 227,
    "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION": 230,
    "NVML_GPM_METRIC_GRAPHICS_UTIL": 1,
    "NVML_GPM_METRIC_SM_UTIL": 2,
    "NVML_GPM_METRIC_SM_OCCUPANCY": 3,
    "NVML_GPM_METRIC_ANY_TENSOR_UTIL": 5,
    "NVML_GPM_METRIC_DRAM_BW_UTIL": 10,
    "NVML_GPM_METRIC_FP64_UTIL": 11,
    "NVML_GPM_METRIC_FP32_UTIL": 12,
    "NVML_GPM_METRIC_FP16_UTIL": 13,
    "NVML_GPM_METRIC_PCIE_TX_PER_SEC": 20,
    "NVML_GPM_METRIC_PCIE_RX_PER_SEC": 21,
    "NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC": 60,
    "NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC": 61,
    "NVML_GPM_METRIC_NVLINK_L17_TX_PER_SEC": 97,
    "NVML_NVLINK_DEVICE_TYPE_SWITCH": 2,
    "NVML_GPU_FABRIC_STATE_COMPLETED": 3,
    "NVML_DEVICE_ARCH_BLACKWELL": 10,
}
# What came after a header.
YOUNGER = {"12": {"nvmlGpuFabricInfo_v3_t", "nvmlGpuFabricInfo_v3"}, "13": set()}
# Driver release 580, CUDA 13.0, numbered these anew.
SLOWDOWNS = ["SW_THERM_SLOWDOWN", "HW_THERM_SLOWDOWN", "HW_POWER_BRAKE_SLOWDOWN"]
FIRST_SLOWDOWN = {"12": 251, "13": 269}


def output(arguments, **options):
    """What a command prints; the process ends here if it fails."""
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=False, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, arguments))} ended with {done.returncode}")
    return done.stdout


def header_of(package):
    """The header of a package, fetched unless it is there; None where it can't be."""
    folder = CACHE / re.sub(r"[^a-z0-9.]+", "-", package)
    if not list(folder.rglob("nvml.h")):
        venv.create(folder, with_pip=True, clear=True)
        pip = [folder / "bin" / "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", package]
        subprocess.run(pip, check=False)
    return next(iter(sorted(folder.rglob("nvml.h"))), None)


def built():
    """The library, and what the example prints."""
    cargo = ["cargo", "build", "--locked", "--package", "plimsoll-fake-nvml", "--lib"]
    cargo.append("--message-format=json-render-diagnostics")
    library = None
    for line in output(cargo, cwd=ROOT).splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and "cdylib" in message["target"]["kind"]:
            library = next((name for name in message["filenames"] if name.endswith(".so")), library)
    run = ["cargo", "run", "--quiet", "--locked", "--package", "plimsoll-fake-nvml", "--example", "layouts"]
    return library, [line.rsplit(" ", 1) for line in output(run, cwd=ROOT).splitlines()]


def exports(library):
    """Names of the functions that a library exports."""
    symbols = output(["nm", "--dynamic", "--defined-only", library]).split()
    return {name for name in symbols if name.startswith("nvml")}


def words(expression):
    """The names in a C expression that are NVIDIA's."""
    return [word for word in re.findall(r"[A-Za-z_]\w*", expression) if word not in {"sizeof", "_Alignof", "offsetof"}]


def declares(text, name):
    """Does the header mention this name?"""
    return re.search(rf"\b{name}\b", text) is not None


def check(header, layouts, functions):
    """Faults, one to a line; empty where all is well."""
    text = header.read_text(encoding="utf-8")
    release = re.search(r"#define NVML_API_VERSION\s+(\d+)", text).group(1)
    numbers = NUMBERS | {
        f"NVML_FI_DEV_CLOCKS_EVENT_REASON_{name}": FIRST_SLOWDOWN[release] + index for index, name in enumerate(SLOWDOWNS)
    }
    expected = [*layouts, *numbers.items()]
    expected = [(left, right) for left, right in expected if not YOUNGER[release].intersection(words(left))]
    missing = [left for left, _ in expected if not all(declares(text, word) for word in words(left))]
    source = ["#include <stddef.h>", f'#include "{header}"']
    known = [(left, right) for left, right in expected if left not in missing]
    source += [f'_Static_assert({left} == {right}, "{left} is not {right}");' for left, right in known]
    compiler = [os.environ.get("CC", "cc"), "-x", "c", "-std=c11", "-fsyntax-only", "-"]
    done = subprocess.run(compiler, input="\n".join(source), capture_output=True, text=True, check=False)
    faults = [line for line in done.stderr.splitlines() if "error" in line]
    if done.returncode != 0 and not faults:
        faults = [done.stderr.strip()]
    faults += [f"the header does not know {name}" for name in missing]
    faults += [f"no header declares {name}" for name in sorted(functions) if not declares(text, name)]
    return faults, len(expected), len(functions)


def main():
    strict = os.environ.get("CI") == "true"
    library, layouts = built()
    functions = exports(library) - PRIVATE
    failed = False
    for package in PACKAGES:
        header = header_of(package)
        if header is None:
            failed |= strict
            print(f"{'FAIL' if strict else 'SKIPPED'} {package}: it can't be fetched")
            continue
        faults, numbers, names = check(header, layouts, functions)
        failed |= bool(faults)
        verdict = "FAIL" if faults else "PASS"
        print(f"{verdict} {package}: {numbers} layouts and numbers, {names} functions", *faults, sep="\n  ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
