"""Writes the seed corpora of the fuzz targets, and a dictionary, from the fixtures and sources: seeds.py FOLDER.

Whole pages are far longer than what a fuzzer likes to mutate, so that each page also gives its families one by one and
in groups, and pairs of pages as an engine shows them one after the other. The names of all dialects, which no mutation
would find, make small pages of their own and the words of the dictionary.
"""

import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE_TARGETS = [path.stem for path in sorted((ROOT / "fuzz/fuzz_targets").glob("page_*.rs"))]
NEXT_PAGE = b"\0"

ITERATIONS = b"""[{"iter":7,"iterLatencyMS":12.5,"numActiveRequests":3,"numQueuedRequests":1,"numCompletedRequests":2,
"kvCacheStats":{"maxNumBlocks":100,"freeNumBlocks":40,"usedNumBlocks":60,"tokensPerBlock":32,"reusedBlocks":5,
"missedBlocks":9,"cacheHitRate":0.35},"inflightBatchingStats":{"numScheduledRequests":3,"numContextRequests":1,
"numGenRequests":2,"numPausedRequests":0,"numCtxTokens":512,"avgNumDecodedTokensPerIter":1.0}}]"""


def families(page: bytes) -> list[bytes]:
    """The families of a page, each with its comments."""
    found: list[bytes] = []
    for line in page.splitlines(keepends=True):
        if line.startswith(b"# HELP") or not found:
            found.append(b"")
        found[-1] += line
    return found


def names() -> list[str]:
    """The metric names of all dialects."""
    found: set[str] = set()
    for path in sorted((ROOT / "agent/src/engines").glob("*.rs")):
        text = path.read_text()
        found.update(re.findall(r'"((?:vllm|sglang|trtllm|dynamo|nv)[a-z0-9_]*[:_][a-z0-9_:]+)"', text))
        for name in re.findall(r'spelled!\("([a-z0-9_]+)"\)', text):
            found.update([f"trtllm_{name}", f"trtllm:{name}"])
    return sorted(found)


LABELS = 'model_name="m",engine="0",engine_type="unified",dp_rank="0",tp_rank="0",model="m",worker_id="1"'


def small_page(name: str, step: int) -> bytes:
    """A family as a gauge or counter, and as a histogram, in its n-th state."""
    buckets = "".join(
        f'{name}_bucket{{{LABELS},le="{le}"}} {n * step}\n' for le, n in [("0.1", 1), ("1.0", 2), ("+Inf", 3)]
    )
    ends = f"{name}_count{{{LABELS}}} {3 * step}\n{name}_sum{{{LABELS}}} {0.7 * step}\n"
    return f"# TYPE {name} histogram\n{name}{{{LABELS}}} {step}\n{buckets}{ends}".encode()


def zigzag_leb128(number: int) -> bytes:
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def histogram(counts: list[int]) -> bytes:
    """HdrHistogram V2 of the fleet's layout; a negative number stands for so many empty cells."""
    payload = b"".join(zigzag_leb128(count) for count in counts)
    return struct.pack(">IiiiqQd", 0x1C849313, len(payload), 0, 2, 1, 7_680_000_000, 1.0) + payload


def body(frame: bytes) -> bytes:
    """The body of a frame, decompressed."""
    if frame[2] == 0:
        return frame[8:]
    return subprocess.run(["zstd", "-dqc"], input=frame[8:], stdout=subprocess.PIPE, check=True).stdout


def certificate(names: list[str]) -> bytes:
    """A certificate for these names, DER."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-keyout", f"{folder}/key", "-outform", "DER", "-subj", "/CN=seed"]
        command += ["-addext", "subjectAltName=" + ",".join(names)]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout


def main() -> None:
    out = pathlib.Path(sys.argv[1])
    written = 0

    def write(target: str, data: bytes) -> None:
        nonlocal written
        folder = out / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"seed-{written:05}").write_bytes(data)
        written += 1

    before: list[bytes] = []
    for path in sorted((ROOT / "agent/fixtures").rglob("*.prom")):
        page = path.read_bytes()
        parts = families(page)
        for part in parts:
            write("exposition", part)
        for target in PAGE_TARGETS:
            write(target, page)
            for at in range(0, len(parts), 6):
                write(target, b"".join(parts[at : at + 6]))
            if before:
                write(target, b"".join(before[:8]) + NEXT_PAGE + b"".join(parts[:8]))
        before = parts
    words = names()
    for name in words:
        for target in PAGE_TARGETS:
            write(target, small_page(name, 1) + NEXT_PAGE + small_page(name, 2))
    words += ["le=", "+Inf", "NaN", "_bucket", "_count", "_sum", "_total", "# TYPE ", "# HELP ", "engine=", "dp_rank="]
    words += ["finished_reason=", "handler=", "status=", "mode=", "process_start_time_seconds", "http_requests_total"]
    quoted = (word.replace("\\", "\\\\").replace('"', '\\"') for word in words)
    (out / "page.dict").write_text("".join(f'"{word}"\n' for word in quoted))
    write("page_trtllm", ITERATIONS)
    write("page_any", ITERATIONS)

    for counts in ([5], [-3, 1, 2, 3], [-200, 7, -1000, 9, 1], [1] * 300):
        plain = histogram(counts)
        packed = zlib.compress(plain)
        write("histogram_v2", plain)
        write("histogram_v2", struct.pack(">Ii", 0x1C849314, len(packed)) + packed)

    bodies: dict[int, list[bytes]] = {}
    for path in sorted((ROOT / "common/fixtures/wire").glob("*.hex")):
        for line in path.read_text().splitlines():
            frame = bytes.fromhex(line.split()[1])
            write("wire_frame", frame)
            bodies.setdefault(frame[1], []).append(body(frame))
    counted = {kind: [struct.pack(">H", len(one)) + one for one in ones] for kind, ones in bodies.items()}
    hello, ack, gap = (b"".join(counted.get(kind, [])[:1]) for kind in (1, 4, 6))
    for one in counted.get(3, []):
        for before in counted.get(2, []):
            write("wire_report", b"\0" + before + b"\1" + one + b"\1" + one)
    window = bytes([2, 1, 0, 2, 2, 0, 2, 4, 3])
    write("wire_control", b"\0" + hello + window + b"\1" + gap + window)
    write("wire_control", bytes([3, 1]) + window + bytes([3, 20]) + window + bytes([11, 5]) + window)
    write("wire_control", bytes([4, 31, 4, 31, 5, 40]) + b"\6" + ack + bytes([4, 31]) + b"\7" + ack + bytes([5, 63]))

    write("handshake", b"# nodes\ngpu-7 " + b"ab" * 32 + b"\ngpu-8\t" + b"01" * 32 + b"\n")
    write("handshake", b"# old\ntoken-one\n\ntoken-two\n")
    write("handshake", b"Bearer 0123456789abcdef")
    write("handshake", b"Basic cGVyc29uOnNlY3JldA==")
    for uris in (["URI:spiffe://plimsoll/node/gpu-7"], ["DNS:gpu-7", "URI:spiffe://plimsoll/node/gpu-70"]):
        write("handshake", certificate(uris))
    print(f"{written} seeds")


main()
