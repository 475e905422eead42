"""Uploads over real Unix sockets: into another process, within one, and over a link that reconnects."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

import kkrpc_py as kk
from benchmarks import uploads
from tests.channel.harness import BOUND, until
from tests.streaming.test_uploads import API, Reading

pytestmark = pytest.mark.anyio

SECONDS = 300


def loop_of(backend: tuple[str, dict[str, Any]]) -> str:
    return "uvloop" if backend[1] else backend[0]


def measured(*options: str) -> uploads.Outcome:
    """What the benchmark finds, in processes of its own."""
    found = subprocess.run(
        [sys.executable, "-m", "benchmarks.uploads", "--json", *options],
        cwd=uploads.ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert found.returncode == 0, found.stderr
    return uploads.Outcome(**json.loads(found.stdout))


def test_a_file_goes_to_another_process_and_neither_grows(anyio_backend: tuple[str, dict[str, Any]]) -> None:
    outcome = measured("--mib", "64", "--stall", "0", "--pause", "0", "--loop", loop_of(anyio_backend))
    assert outcome.equal
    assert outcome.here_bytes < 24 * uploads.MIB
    assert outcome.there_bytes < 16 * uploads.MIB


@pytest.mark.slow
def test_a_gibibyte_goes_to_a_slow_process_and_neither_grows(
    anyio_backend: tuple[str, dict[str, Any]],
) -> None:
    outcome = measured("--mib", "1024", "--loop", loop_of(anyio_backend))
    assert outcome.equal
    assert outcome.here_bytes < 24 * uploads.MIB
    assert outcome.there_bytes < 16 * uploads.MIB


def test_what_the_benchmark_says() -> None:
    assert str(uploads.Outcome(10, 2.0, 1 << 20, 3 << 19, True)) == (
        "10 MiB in 2.0 s (5 MiB/s); at the highest 1.0 MiB more here, 1.5 MiB more at the server; "
        "checksums equal"
    )
    assert "NOT EQUAL" in str(uploads.Outcome(1, 1.0, 0, 0, False))


@contextlib.asynccontextmanager
async def served(api: API, path: Path) -> AsyncIterator[None]:
    async with anyio.create_task_group() as tasks:

        async def serve(*, task_status: anyio.abc.TaskStatus[object]) -> None:
            await kk.serve_unix({"app": api, "streams": api.hub}, path, task_status=task_status)

        await tasks.start(serve)
        yield
        tasks.cancel_scope.cancel()


async def test_two_sessions_over_sockets_each_with_many_uploads(tmp_path: Path) -> None:
    api = API()
    with anyio.fail_after(BOUND):
        async with served(api, tmp_path / "s"), anyio.create_task_group() as tasks:

            async def session(place: int) -> None:
                async with kk.connect_unix(tmp_path / "s") as client:
                    for round in range(10):
                        id = await client.remote().app.open()
                        reading = Reading(tasks, api.readers.pop(id))
                        sent = [bytes([place, round, number]) * (number * 100) for number in range(60)]
                        async with kk.streams(client).upload("files", id, high_water_mark=4) as upload:
                            for chunk in sent:
                                await upload.send(chunk)
                        assert reading.chunks == sent

            async with anyio.create_task_group() as sessions:
                for place in range(4):
                    sessions.start_soon(session, place)
            await until(lambda: not api.hub.inbounds._sessions)


async def test_a_connection_that_breaks_ends_its_uploads_and_the_next_one_begins_anew(tmp_path: Path) -> None:
    api = API()
    with anyio.fail_after(BOUND):
        async with served(api, tmp_path / "s"), anyio.create_task_group() as tasks:
            async with kk.reconnecting(lambda: kk.connect_unix(tmp_path / "s"), initial_delay=0.01) as link:
                channel = await link.connected()
                id = await channel.remote().app.open()
                reading = Reading(tasks, api.readers.pop(id))
                upload = kk.streams(link).upload("files", id)
                upload.write("one")
                await until(lambda: reading.chunks == ["one"])
                await channel.byte_stream.aclose()
                await upload.signal
                with pytest.raises(kk.ChannelClosed):
                    await upload.aclose()
                await reading.over.wait()
                assert isinstance(reading.error, kk.UploadDisconnected)
                channel = await link.connected(after=channel)
                again = kk.streams(link).upload("files", id)
                with pytest.raises(kk.UnknownStream):
                    await again.aclose()
                id = await channel.remote().app.open()
                reading = Reading(tasks, api.readers.pop(id))
                async with kk.streams(link).upload("files", id) as upload:
                    await upload.send("two")
                assert reading.chunks == ["two"]


async def test_a_file_from_disk_and_its_checksum(tmp_path: Path) -> None:
    checksum = uploads.make_file(tmp_path / "file", 3)
    assert (tmp_path / "file").stat().st_size == 3 * uploads.MIB
    assert hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest() == checksum
    sizes = [len(piece) async for piece in uploads.pieces(tmp_path / "file", 1_000_000)]
    assert sizes == [1_000_000] * 3 + [3 * uploads.MIB - 3_000_000]
