#!/usr/bin/env python3
"""Exchanges latency histograms with the HdrHistogram of PyPI, both ways:

    hdr_exchange.py PATH-OF-HDR_V2 [URL SAMPLES]

Needs `pip install hdrhistogram`. `hdr_v2` is the example of plimsoll-common of that name; the URL is one of the planner's
histograms, which must hold so many samples.
"""

import base64
import random
import subprocess
import sys
import urllib.request

from hdrh.histogram import HdrHistogram

HIGHEST = 7_680_000_000
EDGES = [0, 1, 127, 128, 255, 256, 257, 65_535, 65_536, 1_000_000, HIGHEST - 1, HIGHEST]
QUANTILES = [0, 1, 50, 90, 95, 99, 99.9, 100]


def theirs_of(values):
    """Their histogram of the fleet's layout."""
    histogram = HdrHistogram(1, HIGHEST, 2)
    for value in values:
        histogram.record_value(value)
    return histogram


def ours(program, mode, data):
    """Runs `hdr_v2`."""
    return subprocess.run([program, mode], input=data, capture_output=True, check=True).stdout


def cells(histogram):
    """Highest value of a cell → samples, of their histogram."""
    return {item.value_iterated_to: item.count_at_value_iterated_to for item in histogram.get_recorded_iterator()}


def equal(what, got, wanted):
    """Ends the process on a mismatch."""
    if got != wanted:
        sys.exit(f"MISMATCH: {what}: {got!r} and {wanted!r}")


def exchange(program, name, values):
    """One set of values in both directions."""
    theirs = theirs_of(values)
    # Ours to theirs.
    sent = ours(program, "encode", "\n".join(map(str, values)).encode())
    read = HdrHistogram.decode(base64.b64encode(sent))
    equal(f"{name}: samples that they read", read.get_total_count(), len(values))
    equal(f"{name}: cells that they read", cells(read), cells(theirs))
    for quantile in QUANTILES:
        wanted = theirs.get_value_at_percentile(quantile)
        equal(f"{name}: p{quantile}", read.get_value_at_percentile(quantile), wanted)
    # Theirs to ours.
    lines = ours(program, "decode", base64.b64decode(theirs.encode())).decode().split("\n")
    pairs = [tuple(map(int, line.split())) for line in lines if line]
    equal(f"{name}: samples that we read", sum(n for _, n in pairs), len(values))
    for lowest, n in pairs:
        equal(f"{name}: samples that we read at {lowest}", n, theirs.get_count_at_value(lowest))
    print(f"  {name}: {len(values)} samples in {len(pairs)} cells, {len(sent)} bytes of V2-deflate, equal both ways")


def served(url, samples):
    """A histogram of the planner."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        read = HdrHistogram.decode(answer.read())
    equal(f"samples of {url}", read.get_total_count(), samples)
    print(f"  served by the planner: {samples} samples, p50 {read.get_value_at_percentile(50)} µs")


def main():
    if len(sys.argv) not in (2, 4):
        sys.exit(__doc__)
    draw = random.Random(7)
    latencies = [min(HIGHEST, int(draw.lognormvariate(11, 2.5))) for _ in range(20_000)]
    for name, values in {"empty": [], "edges": EDGES, "latencies": latencies}.items():
        exchange(sys.argv[1], name, values)
    if len(sys.argv) == 4:
        served(sys.argv[2], int(sys.argv[3]))
    print("OK")


if __name__ == "__main__":
    main()
