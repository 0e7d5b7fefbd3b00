"""What engines use to tell of forward passes and requests: libzmq with msgspec, and OpenTelemetry's exporters.

    python exact_sources.py publish ENDPOINT...      binds ZeroMQ publishers, says where, and obeys lines on stdin
    python exact_sources.py trace gRPC-URL HTTP-URL N   sends N request spans over each
"""

import json
import sys
import threading

PROMPT = "the secret prompt"


def publish(endpoints):
    """Each publisher sends heartbeats until a line `passes N gap M` comes, which sends N passes with M numbers left out in the
    middle; ends with stdin."""
    import msgspec
    import zmq

    class Scheduled(msgspec.Struct, frozen=True):
        num_prefill_requests: int = 0
        sum_prefill_tokens: int = 0
        var_prefill_length: float = 0.0
        sum_prefill_kv_tokens: int = 0
        num_decode_requests: int = 0
        sum_decode_kv_tokens: int = 0
        var_decode_kv_tokens: float = 0.0

    class Queued(msgspec.Struct, frozen=True):
        num_prefill_requests: int = 0
        sum_prefill_tokens: int = 0
        var_prefill_length: float = 0.0
        num_decode_requests: int = 0
        sum_decode_kv_tokens: int = 0
        var_decode_kv_tokens: float = 0.0

    class ForwardPassMetrics(msgspec.Struct):
        version: int = 1
        worker_id: str = ""
        dp_rank: int = 0
        counter_id: int = 0
        wall_time: float = 0.0
        scheduled_requests: Scheduled = Scheduled()
        queued_requests: Queued = Queued()

    context, encoder = zmq.Context(), msgspec.msgpack.Encoder()
    sockets = []
    for endpoint in endpoints:
        socket = context.socket(zmq.PUB)
        socket.bind(endpoint)
        sockets.append(socket)
    print(json.dumps([socket.getsockopt_string(zmq.LAST_ENDPOINT) for socket in sockets]), flush=True)
    counters = [0] * len(sockets)

    def send(rank, metrics):
        metrics.counter_id, metrics.dp_rank, metrics.worker_id = counters[rank], rank, "worker"
        sockets[rank].send_multipart((b"", counters[rank].to_bytes(8, "big"), encoder.encode(metrics)))
        counters[rank] += 1

    lines, ended = [], threading.Event()

    def read():
        for line in sys.stdin:
            lines.append(line.split())
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    while not ended.wait(0.05):
        for rank in range(len(sockets)):
            send(rank, ForwardPassMetrics())
        while lines:
            _, passes, _, gap = lines.pop(0)
            for rank in range(len(sockets)):
                for number in range(int(passes)):
                    if number == int(passes) // 2:
                        counters[rank] += int(gap)
                    work = Scheduled(num_prefill_requests=number % 2, num_decode_requests=1)
                    send(rank, ForwardPassMetrics(wall_time=0.010, scheduled_requests=work, queued_requests=Queued(3, 300)))
    context.destroy(linger=0)


def trace(grpc, http, spans):
    """Spans as vLLM makes them, through the exporters that it uses."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    for exporter in (Grpc(endpoint=grpc, insecure=True), Http(endpoint=http)):
        provider = TracerProvider(resource=Resource.create({"service.name": "vllm"}))
        provider.add_span_processor(BatchSpanProcessor(exporter))
        tracer = provider.get_tracer("vllm.llm_engine")
        for _ in range(spans):
            span = tracer.start_span("llm_request")
            span.set_attributes(
                {
                    "gen_ai.prompt": PROMPT,
                    "gen_ai.latency.time_to_first_token": 0.125,
                    "gen_ai.latency.e2e": 1.125,
                    "gen_ai.latency.time_in_queue": 0.0625,
                    "gen_ai.latency.time_in_model_prefill": 0.0625,
                    "gen_ai.latency.time_in_model_decode": 1.0,
                    "gen_ai.latency.time_in_model_inference": 1.0625,
                    "gen_ai.usage.prompt_tokens": 100,
                    "gen_ai.usage.completion_tokens": 11,
                    "gen_ai.response.finish_reasons": ["length"],
                }
            )
            span.end()
        provider.shutdown()


if __name__ == "__main__":
    if sys.argv[1] == "publish":
        publish(sys.argv[2:])
    else:
        trace(sys.argv[2], sys.argv[3], int(sys.argv[4]))
