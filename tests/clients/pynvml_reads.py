#!/usr/bin/env python3
"""Reads the fake NVML library through NVIDIA's own Python bindings and compares with what the scenarios say.

    pip install nvidia-ml-py
    cargo build -p plimsoll-fake-nvml
    python tests/clients/pynvml_reads.py target/debug

The argument is the folder with `libplimsoll_fake_nvml.so` (or with `libnvidia-ml.so.1`). The bindings find a library by its
name only, so a folder with a link of that name is put into LD_LIBRARY_PATH, and each scenario runs in a process of its own.
Prints what was read; exits with 1 on the first mismatch.
"""

import ctypes
import os
import pathlib
import subprocess
import sys
import tempfile
import time

VARIABLE = "PLIMSOLL_FAKE_NVML_"
MIB = 1 << 20

EXPECTED = {
    "hgx-h100-8": {
        "count": 8,
        "name": "NVIDIA H100 80GB HBM3",
        "architecture": 9,
        "capability": (9, 0),
        "memory_mib": 81559,
        "reserved_mib": 551,
        "used_mib": 65536,
        "limit_mw": 700_000,
        "sm_max": 1980,
        "memory_clock": 2619,
        "first_pci": "00000000:1B:00.0",
        "clique": 0,
        "cluster": bytes(16),
        "nvlink_version": 6,
        "slowdown_c": 89,
    },
    "gb200-tray": {
        "count": 4,
        "name": "NVIDIA GB200",
        "architecture": 10,
        "capability": (10, 0),
        "memory_mib": 189471,
        "reserved_mib": 653,
        "used_mib": 151552,
        "limit_mw": 1_200_000,
        "sm_max": 2062,
        "memory_clock": 3996,
        "first_pci": "00000008:01:00.0",
        "clique": 2,
        "cluster": bytes.fromhex("7f5a9c1e3b424d869e105c2d8a6b4f01"),
        "nvlink_version": 7,
        "slowdown_c": 88,
    },
}


def equal(what, got, wanted):
    """Compares, prints, and ends the process on a mismatch."""
    print(f"  {what:<32} {got}")
    if got != wanted:
        sys.exit(f"MISMATCH: {what}: read {got!r}, expected {wanted!r}")


def holds(what, got, test):
    """Like `equal`, with a condition."""
    print(f"  {what:<32} {got}")
    if not test(got):
        sys.exit(f"MISMATCH: {what}: read {got!r}")


def refused(what, nvml, error, call, *arguments):
    """Expects a call to fail with this error."""
    try:
        got = call(*arguments)
    except nvml.NVMLError as raised:
        equal(what, type(raised).__name__, nvml.NVMLError(error).__class__.__name__)
    else:
        sys.exit(f"MISMATCH: {what}: expected an error, read {got!r}")


def machine(nvml, wanted):
    """What belongs to the node."""
    refused("before nvmlInit", nvml, nvml.NVML_ERROR_UNINITIALIZED, nvml.nvmlDeviceGetCount)
    nvml.nvmlInit()
    equal("driver", nvml.nvmlSystemGetDriverVersion(), "580.95.05")
    equal("NVML", nvml.nvmlSystemGetNVMLVersion(), "13.580.95.05")
    equal("CUDA", nvml.nvmlSystemGetCudaDriverVersion(), 13000)
    equal("GPUs", nvml.nvmlDeviceGetCount(), wanted["count"])
    handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(wanted["count"])]
    uuids = [nvml.nvmlDeviceGetUUID(handle) for handle in handles]
    equal("distinct UUIDs", len(set(uuids)), wanted["count"])
    equal("first PCI address", nvml.nvmlDeviceGetPciInfo(handles[0]).busId, wanted["first_pci"])
    for index, uuid in enumerate(uuids):
        equal("handle by UUID", nvml.nvmlDeviceGetIndex(nvml.nvmlDeviceGetHandleByUUID(uuid)), index)
    refused("one GPU too many", nvml, nvml.NVML_ERROR_INVALID_ARGUMENT, nvml.nvmlDeviceGetHandleByIndex, len(handles))
    return handles


def identity(nvml, gpu, wanted):
    """What does not move."""
    equal("name", nvml.nvmlDeviceGetName(gpu), wanted["name"])
    equal("architecture", nvml.nvmlDeviceGetArchitecture(gpu), wanted["architecture"])
    equal("compute capability", tuple(nvml.nvmlDeviceGetCudaComputeCapability(gpu)), wanted["capability"])
    equal("power limit", nvml.nvmlDeviceGetEnforcedPowerLimit(gpu), wanted["limit_mw"])
    equal("power limits", nvml.nvmlDeviceGetPowerManagementLimitConstraints(gpu), [200_000, wanted["limit_mw"]])
    equal("greatest SM clock", nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM), wanted["sm_max"])
    equal("memory clock", nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM), wanted["memory_clock"])
    slowdown = nvml.nvmlDeviceGetTemperatureThreshold(gpu, nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)
    equal("slowdown temperature", slowdown, wanted["slowdown_c"])
    equal("ECC", nvml.nvmlDeviceGetEccMode(gpu), [1, 1])
    equal("MIG", nvml.nvmlDeviceGetMigMode(gpu), [0, 0])
    equal("P-state", nvml.nvmlDeviceGetPerformanceState(gpu), 0)
    equal("NVLink version", nvml.nvmlDeviceGetNvLinkVersion(gpu, 0), wanted["nvlink_version"])
    equal("NVLink far end", nvml.nvmlDeviceGetNvLinkRemoteDeviceType(gpu, 17), nvml.NVML_NVLINK_DEVICE_TYPE_SWITCH)
    refused("nineteenth NVLink", nvml, nvml.NVML_ERROR_INVALID_ARGUMENT, nvml.nvmlDeviceGetNvLinkState, gpu, 18)
    refused("fan speed", nvml, nvml.NVML_ERROR_NOT_SUPPORTED, nvml.nvmlDeviceGetFanSpeed, gpu)
    info = nvml.c_nvmlGpuFabricInfoV_t()
    info.version = nvml.nvmlGpuFabricInfo_v2
    nvml.nvmlDeviceGetGpuFabricInfoV(gpu, ctypes.byref(info))
    equal("fabric", (info.state, info.cliqueId), (nvml.NVML_GPU_FABRIC_STATE_COMPLETED, wanted["clique"]))
    cluster = bytes(ctypes.string_at(ctypes.addressof(info) + type(info).clusterUuid.offset, 16))
    equal("cluster", cluster.hex(), wanted["cluster"].hex())


def load(nvml, gpu, wanted):
    """What moves."""
    second = nvml.nvmlDeviceGetMemoryInfo(gpu, version=nvml.nvmlMemory_v2)
    first = nvml.nvmlDeviceGetMemoryInfo(gpu)
    equal("memory", second.total, wanted["memory_mib"] * MIB)
    equal("memory used", second.used, wanted["used_mib"] * MIB)
    equal("memory used, first layout", first.used, (wanted["used_mib"] + wanted["reserved_mib"]) * MIB)
    holds("utilization", nvml.nvmlDeviceGetUtilizationRates(gpu).gpu, lambda percent: 30 <= percent <= 90)
    holds("power", nvml.nvmlDeviceGetPowerUsage(gpu), lambda mw: 200_000 < mw < wanted["limit_mw"])
    holds("temperature", nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU), lambda c: 30 < c < 80)
    holds("temperature, versioned", nvml.nvmlDeviceGetTemperatureV(gpu, nvml.NVML_TEMPERATURE_GPU), lambda c: 30 < c < 80)
    equal("clocks event reasons", nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu), 0)
    equal("processes", nvml.nvmlDeviceGetComputeRunningProcesses(gpu), [])
    before = nvml.nvmlDeviceGetTotalEnergyConsumption(gpu)
    fields = nvml.nvmlDeviceGetFieldValues(
        gpu, [nvml.NVML_FI_DEV_POWER_INSTANT, nvml.NVML_FI_DEV_MEMORY_TEMP, (nvml.NVML_FI_DEV_NVLINK_GET_SPEED, 3), 9999]
    )
    equal("field codes", [field.nvmlReturn for field in fields], [0, 0, 0, nvml.NVML_ERROR_INVALID_ARGUMENT])
    holds("instant power", fields[0].value.uiVal, lambda mw: 200_000 < mw < wanted["limit_mw"])
    monitoring(nvml, gpu)
    holds("energy grew by", nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) - before, lambda mj: mj > 0)


def monitoring(nvml, gpu):
    """GPM between two samples."""
    equal("GPM", nvml.nvmlGpmQueryDeviceSupport(gpu).isSupportedDevice, 1)
    samples = [nvml.nvmlGpmSampleAlloc() for _ in range(2)]
    nvml.nvmlGpmSampleGet(gpu, samples[0])
    time.sleep(0.15)  # The counters are refreshed every 100 ms of real time.
    nvml.nvmlGpmSampleGet(gpu, samples[1])
    request = nvml.c_nvmlGpmMetricsGet_t()
    request.version = nvml.NVML_GPM_METRICS_GET_VERSION
    request.numMetrics = 2
    request.sample1, request.sample2 = samples
    request.metrics[0].metricId = nvml.NVML_GPM_METRIC_GRAPHICS_UTIL
    request.metrics[1].metricId = nvml.NVML_GPM_METRIC_SM_UTIL
    nvml.nvmlGpmMetricsGet(request)
    graphics, sm = (request.metrics[index].value for index in range(2))
    holds("GPM graphics and SM", (round(graphics, 2), round(sm, 2)), lambda pair: 30 <= pair[0] <= 90 and pair[1] < pair[0])
    for sample in samples:
        nvml.nvmlGpmSampleFree(sample)


def check(scenario):
    """One scenario, in this process."""
    import pynvml as nvml

    wanted = EXPECTED[scenario]
    handles = machine(nvml, wanted)
    for gpu in handles:
        identity(nvml, gpu, wanted)
        load(nvml, gpu, wanted)
    nvml.nvmlShutdown()
    refused("after nvmlShutdown", nvml, nvml.NVML_ERROR_UNINITIALIZED, nvml.nvmlDeviceGetCount)


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--scenario":
        check(sys.argv[2])
        return
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = pathlib.Path(sys.argv[1]).resolve()
    names = ["libplimsoll_fake_nvml.so", "libnvidia-ml.so.1"]
    library = next((folder / name for name in names if (folder / name).exists()), None)
    if library is None:
        sys.exit(f"no {' or '.join(names)} in {folder}: cargo build -p plimsoll-fake-nvml")
    with tempfile.TemporaryDirectory() as links:
        (pathlib.Path(links) / "libnvidia-ml.so.1").symlink_to(library)
        for scenario in EXPECTED:
            print(f"{scenario}:", flush=True)
            ours = {key: value for key, value in os.environ.items() if not key.startswith(VARIABLE)}
            environment = ours | {"LD_LIBRARY_PATH": links, VARIABLE + "SCENARIO": scenario}
            done = subprocess.run([sys.executable, __file__, "--scenario", scenario], env=environment, check=False)
            if done.returncode != 0:
                sys.exit(1)
    print("OK")


if __name__ == "__main__":
    main()
