"""One span a call, on both sides, in one trace (`pip install kkrpc-py[otel] opentelemetry-sdk`)."""

import sys

import anyio

import kkrpc_py as kk

try:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from kkrpc_py import otel
except ModuleNotFoundError:
    print("skipped: opentelemetry-sdk is not installed")
    sys.exit()


class Shop:
    async def prices(self, items: list[str]):
        for item in items:
            yield len(item)


async def main() -> None:
    exporter = InMemorySpanExporter()  # stands for: one that sends them somewhere
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry = {"interceptors": [otel.interceptor(provider)], "on_call": otel.on_call(provider)}

    async with kk.memory_pair(Shop(), None, **telemetry) as (_, client):
        async for price in client.remote().prices(["bolt", "nut"]):
            print(price)

    spans = {span.kind.name: span for span in exporter.get_finished_spans()}
    caller, callee = spans["CLIENT"], spans["SERVER"]
    print("caller:", caller.name, caller.attributes["kkrpc.stream.chunks"], "chunks")
    print("callee:", callee.name, "below it:", callee.parent.span_id == caller.context.span_id)


anyio.run(main)
