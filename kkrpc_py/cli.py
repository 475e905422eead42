"""The command line: `kkrpc-py serve`, `kkrpc-py call`, `kkrpc-py demo`, `kkrpc-py conformance`.

This module owns arguments, output and exit codes. Exit codes: 0; 1 for what failed, with its name
and message on stderr; 2 for a wrong command line; 128 and the signal's number where a signal ended
it, and so 141 where the reader of its output went away.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import datetime
import functools
import importlib
import importlib.util
import inspect
import json
import math
import os
import re
import select
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn

import anyio
from anyio.abc import TaskStatus

import kkrpc_py as kk
from kkrpc_py import demo
from kkrpc_py.channel.endpoints import run_stream
from kkrpc_py.channel.expose import Exposed
from kkrpc_py.transports.stdio import open_stdio

__all__ = ["main", "readable"]

_BACKENDS = ("asyncio", "trio")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STDOUT = 1
_NEGATIVE = re.compile(r"-(\d|\.\d)")
_UNSEEN = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")

Run = Callable[[], Awaitable[int]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of `kkrpc-py`; its exit code. A wrong command line raises SystemExit(2)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        options = _parse(words)
        code: int = options.run(options)
    except BrokenPipeError:
        code = 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    return _flushed(code)


def _flushed(code: int) -> int:
    """Write what print() holds back, so that the interpreter's end has nothing to complain about."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
        return code or 128 + signal.SIGPIPE
    return code


# Arguments -----------------------------------------------------------------------------------


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kkrpc-py", description=kk.__doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    serve = commands.add_parser(
        "serve",
        help="serve a Python object",
        description="Serve a Python object: to the parent process, over stdin and stdout, or on a socket.",
    )
    serve.add_argument(
        "object", type=_object_name, metavar="MODULE:OBJECT", help="may be dotted; a class is instantiated"
    )
    _add_address(serve)
    serve.set_defaults(run=_serve)

    call = commands.add_parser(
        "call",
        usage="%(prog)s METHOD [JSON ...] (--tcp HOST:PORT | --unix PATH | -- COMMAND ...)",
        help="call a method, print what comes",
        description="Call a method of a server, or of a command started for it. A value is printed as one "
        "line of JSON, a stream as one line for each chunk as it arrives; its return value, where it has "
        "one, comes last, on stderr. What JSON cannot carry is shown so: "
        '{"$bytes": "aGk="} (base64), {"$datetime": "2026-01-31T12:00:00+00:00"}, {"$set": [1]}, '
        '{"$float": "nan"}, {"$dict": [[1, "one"]]}, {"$Decimal": "1.10"}, {"$UUID": "…"}.',
    )
    call.add_argument("method", metavar="METHOD", help="a name, dotted for what is in a namespace")
    call.add_argument("args", nargs="*", metavar="JSON", help="an argument; a string needs its quotes")
    _add_address(call)
    call.set_defaults(run=_call, command=[])

    show = commands.add_parser(
        "demo",
        help="a parent and its child at work",
        description="Start a child process that hashes the files of a folder, show its progress, then do it "
        "again and cancel it half-way.",
    )
    show.add_argument("folder", nargs="?", default=".", metavar="PATH", help="default: this folder")
    show.add_argument(
        "--seconds", type=_seconds, default=6.0, metavar="N", help="stop reading after so long; default: 6"
    )
    show.set_defaults(run=_demo)
    for command in (serve, call, show):
        command.add_argument(
            "--backend",
            type=_backend,
            default="asyncio",
            metavar="LOOP",
            help="asyncio (the default) or trio",
        )

    commands.add_parser("conformance", add_help=False, help="test an implementation of the protocol")
    if words[:1] == ["conformance"]:
        # Late: half of the kit, which the other commands need not load. What follows is the kit's own.
        from kkrpc_py.conformance import command as kit

        options = kit.parse(words[1:])
        options.run = _conformance
        return options
    if words[:1] != ["call"]:
        return parser.parse_args(words)
    # What follows `--` belongs to the command. argparse would also take -1e3 for an option, and does
    # not let options stand between arguments of a subcommand.
    end = words.index("--") if "--" in words else len(words)
    before = [f" {word}" if _NEGATIVE.match(word) else word for word in words[1:end]]
    options = call.parse_intermixed_args(before)
    options.command = words[end + 1 :]
    if not options.method:
        call.error("the method's name is empty")
    if (options.tcp is not None) + (options.unix is not None) + bool(options.command) != 1:
        call.error("say where to call: --tcp HOST:PORT, --unix PATH, or -- COMMAND …, one of them")
    options.args = [_json(call, number, word) for number, word in enumerate(options.args, 1)]
    return options


def _add_address(parser: argparse.ArgumentParser) -> None:
    address = parser.add_mutually_exclusive_group()
    address.add_argument("--tcp", type=_host_and_port, metavar="HOST:PORT", help="[::1]:PORT for IPv6")
    address.add_argument("--unix", metavar="PATH", help="a Unix socket")


def _object_name(word: str) -> tuple[str, str]:
    module, _, path = word.partition(":")
    if not (module and path):
        raise argparse.ArgumentTypeError(f"{word!r} is not MODULE:OBJECT, such as package.module:Api")
    return module, path


def _backend(word: str) -> str:
    if word not in _BACKENDS:
        raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(_BACKENDS)}")
    if importlib.util.find_spec(word) is None:
        raise argparse.ArgumentTypeError(f"it is not installed: pip install 'kkrpc-py[{word}]'")
    return word


def _host_and_port(word: str) -> tuple[str, int]:
    host, _, port = word.strip().rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{word!r} is not HOST:PORT")
    return host, int(port)


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address(options: argparse.Namespace) -> str:
    """The address that was given, for messages; empty for stdio."""
    return _shown(*options.tcp) if options.tcp is not None else options.unix or ""


def _seconds(word: str) -> float:
    with contextlib.suppress(ValueError):
        seconds = float(word)
        if math.isfinite(seconds) and seconds > 0:
            return seconds
    raise argparse.ArgumentTypeError(f"{word.strip()!r} is no number of seconds above 0")


def _json(parser: argparse.ArgumentParser, number: int, word: str) -> Any:
    def refuse(token: str) -> NoReturn:
        raise ValueError(f"{token} is not JSON")

    try:
        return json.loads(word, parse_constant=refuse)
    except (ValueError, RecursionError) as exc:
        hint = f"; a string is '\"{word}\"'" if word.isidentifier() else ""
        parser.error(f"argument {number} of the method is not JSON: {exc}{hint}")


# Serve ---------------------------------------------------------------------------------------


def _serve(options: argparse.Namespace) -> int:
    over_stdio = options.tcp is None and options.unix is None
    # Before any of the user's code runs: what it prints when it is imported must not reach the wire.
    stream = open_stdio() if over_stdio else None
    try:
        api = _load(*options.object)
    except _LoadError as exc:
        return _failed(str(exc))
    except Exception:
        traceback.print_exc()
        return 1
    if stream is None:
        return _run(functools.partial(_listen, api, options), options.backend, _address(options))
    run_stream(stream, api, backend=options.backend)
    return 0


class _LoadError(Exception):
    """MODULE:OBJECT does not lead to an object."""


def _load(module_name: str, path: str) -> Any:
    """The object to serve. Raises _LoadError, and what the user's code raises."""
    if not sys.flags.safe_path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        # A module that is there, and misses another one, is the user's to see as it is.
        if exc.name is None or not f"{module_name}.".startswith(f"{exc.name}."):
            raise
        raise _LoadError(f"there is no module {exc.name!r}") from None
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            raise _LoadError(f"{module_name}:{path}: nothing is named {attribute!r}")
        found = getattr(found, attribute)
    api = found() if inspect.isclass(found) else found
    if inspect.isroutine(api) or api is None:
        raise _LoadError(f"{module_name}:{path} is {api!r}, which has no methods to serve")
    try:
        Exposed(api)
    except TypeError as exc:
        raise _LoadError(f"{module_name}:{path}: {exc}") from None
    return api


async def _listen(api: Any, options: argparse.Namespace) -> int:
    if options.tcp is not None:
        await kk.serve_tcp(api, *options.tcp, task_status=_Listening())
    else:
        await kk.serve_unix(api, options.unix, task_status=_Listening())
    return 0


class _Listening(TaskStatus[list[Any]]):
    """Tells the user where the server listens, once it does."""

    def started(self, value: list[Any] | None = None) -> None:
        for address in value or []:
            if isinstance(address, tuple):
                address = _shown(address[0], address[1])
            _tell(f"listening on {address}")


# Call ----------------------------------------------------------------------------------------


def _call(options: argparse.Namespace) -> int:
    if sys.stdout is None:  # its descriptor may be anything by now
        return _failed("stdout is closed")
    return _run(functools.partial(_call_and_print, options), options.backend, _address(options))


async def _call_and_print(options: argparse.Namespace) -> int:
    async with _connect(options) as channel:
        answer = await channel.remote()[options.method](*options.args)
        if not isinstance(answer, kk.StreamCall):
            await _write_line(answer)
            return 0
        async with answer:
            async for chunk in answer:
                await _write_line(chunk)
            result = await answer.result()
        if result is not None:
            _tell(_to_line(result))
        return 0


def _connect(options: argparse.Namespace) -> AbstractAsyncContextManager[kk.RPCChannel]:
    if options.tcp is not None:
        return kk.connect_tcp(*options.tcp)
    if options.unix is not None:
        return kk.connect_unix(options.unix)
    return kk.open_process(options.command, stderr="inherit")


async def _write_line(value: Any) -> None:
    """Write one line to stdout, past Python's buffer, and never block the event loop on it.

    O_NONBLOCK is not ours to set on a descriptor that a terminal or a shell shares. What is not
    ready to take a few bytes is waited for; a file is always ready.
    """
    data = memoryview(_to_line(value).encode() + b"\n")
    while data:
        if not select.select([], [_STDOUT], [], 0)[1]:
            await anyio.wait_writable(_STDOUT)
        data = data[os.write(_STDOUT, data[: select.PIPE_BUF]) :]


def _to_line(value: Any) -> str:
    text = json.dumps(readable(value), ensure_ascii=False, allow_nan=False)
    # What steers a terminal or ends a line for somebody is written as JSON allows: escaped.
    return _UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def readable(value: Any) -> Any:
    """`value` as JSON can show it: what it cannot carry becomes `{"$type": …}`. For reading only."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else {"$float": str(value)}
        case list() | tuple():
            return [readable(each) for each in value]
        case dict():
            if all(isinstance(key, str) for key in value):
                return {key: readable(each) for key, each in value.items()}
            return {"$dict": [[readable(key), readable(each)] for key, each in value.items()]}
        case bytes():
            return {"$bytes": base64.b64encode(value).decode()}
        case set() | frozenset():
            return {"$set": [readable(each) for each in value]}
        case datetime.date():
            return {f"${type(value).__name__}": value.isoformat()}
        case _:
            return {f"${type(value).__name__}": str(value)}


# Running -------------------------------------------------------------------------------------


def _demo(options: argparse.Namespace) -> int:
    run = functools.partial(demo.run, options.folder, seconds=options.seconds, backend=options.backend)
    return _run(run, options.backend)


def _conformance(options: argparse.Namespace) -> int:
    from kkrpc_py.conformance import command as kit

    # Testees are in process groups of their own, which a terminal that goes away does not tell. nohup
    # has the signal ignored, and it stays so.
    signals: tuple[signal.Signals, ...] = _SIGNALS
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals = (*_SIGNALS, signal.SIGHUP)
    return _run(functools.partial(kit.execute, options), "asyncio", signals=signals)


def _run(run: Run, backend: str, address: str = "", signals: tuple[signal.Signals, ...] = _SIGNALS) -> int:
    """Run `run` on an event loop until it returns or a signal comes; what it raises is reported."""
    try:
        return anyio.run(_until_signal, run, signals, backend=backend)
    except kk.RemoteError as exc:
        return _failed(f"{exc.name}: {exc.message}")
    except kk.KkrpcError as exc:
        return _failed(f"{type(exc).__name__}: {exc}")
    except BrokenPipeError:
        raise
    except OSError as exc:
        return _failed(f"{address}: {exc}" if address else str(exc))
    except BaseExceptionGroup as exc:
        if exc.subgroup(KeyboardInterrupt) is None:
            raise
        raise KeyboardInterrupt from exc


async def _until_signal(run: Run, signals: tuple[signal.Signals, ...]) -> int:
    """What `run` returns. The first signal cancels it, and everything is cleaned up; the second ends it."""
    ended_by: list[int] = []
    error: BaseException | None = None
    code = 0

    async def watch() -> None:
        with anyio.open_signal_receiver(*signals) as received:
            async for number in received:
                ended_by.append(number)
                tasks.cancel_scope.cancel()
                break

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        try:
            code = await run()
        except Exception as exc:  # raised below, outside of the group, which would wrap it
            error = exc
        tasks.cancel_scope.cancel()
    if ended_by:
        return 128 + ended_by[0]
    if error is not None:
        raise error
    return code


def _failed(message: str) -> int:
    # A peer's message may hold anything, also what steers a terminal.
    shown = (each if each.isprintable() or each in "\n\t" else ascii(each)[1:-1] for each in message)
    _tell(f"kkrpc-py: {''.join(shown)}")
    return 1


def _tell(text: str) -> None:
    if sys.stderr is not None:  # print() would take stdout instead
        with contextlib.suppress(OSError):
            print(text, file=sys.stderr, flush=True)
