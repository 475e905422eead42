"""A testee that does what it is told: the tests of the kit make it wrong in one way at a time.

It speaks JSON lines with the standard library alone, and answers one call after the other. Its methods are
those that the kit itself calls, and those that a test wants: `say` and `later` write text before and after
their answer, `hex` writes bytes, `exit` and others treat the process. Arguments: the features that it
declares; one that begins with `describe=` or `hello=` is JSON to answer with.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FEATURES = [name for name in sys.argv[1:] if "=" not in name]
OPTIONS = {
    name: json.loads(value) for name, _, value in (option.partition("=") for option in sys.argv[1:]) if value
}
state: dict[str, Any] = {"running": 0, "stay": False, "asked": 0, "code": 0, "last": ""}


def write(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def answer(method: str, args: list[Any]) -> dict[str, Any]:
    found = globals().get(f"do_{method}")
    if found is None:
        return {"error": f"Method {method} is not a function"}
    result = found(*args)
    return {} if result is None else {"result": result}


def do_describe() -> Any:
    usual = {"protocol": 1, "name": "scripted", "version": "0", "features": FEATURES}
    return OPTIONS.get("describe", usual)


def do_barrier() -> None:
    pass


def do_reset() -> Any:
    return {"running": state["running"]}


def do_leave(running: int) -> None:
    state["running"] = running


def do_echo(value: Any) -> Any:
    return value


def do_say(*texts: str) -> None:
    for text in texts:
        write(text.encode("utf-8", "surrogatepass") + b"\n")


def do_hex(text: str) -> None:
    write(bytes.fromhex(text))


def do_exit(code: int, stderr: str = "") -> None:
    os.write(2, stderr.encode())
    os._exit(code)


def do_kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def do_hang() -> None:
    time.sleep(600)


def do_half(text: str) -> None:
    """Half a line, and nothing more."""
    write(text.encode())
    time.sleep(600)


def do_half_exit(text: str, more: str = "") -> None:
    """Half a line, or half a frame in hex, and the end."""
    write(text.encode() + bytes.fromhex(more))
    os._exit(0)


def do_slowly(seconds: float, *texts: str) -> None:
    """Say the last of them a little later than the others."""
    do_say(*texts[:-1])
    time.sleep(seconds)
    do_say(texts[-1])


def do_flood(size: int, times: int) -> None:
    for _ in range(times):
        do_say('{"type":"get","x":"' + "x" * size + '"}')


def do_close() -> None:
    """Close the output and live on."""
    os.close(1)
    time.sleep(600)


def do_shut() -> None:
    """Close the input, and exit with 4 a little later."""
    os.close(0)
    time.sleep(0.2)
    os._exit(4)


def do_stay() -> None:
    """From now on the end of the input does not end the process."""
    state["stay"] = True


def do_after_reset(text: str) -> None:
    """Say that behind the answer to `reset`."""
    state["after_reset"] = text


def do_at_end(code: int, last: str = "") -> None:
    """At the end of the input it says that, and exits so."""
    state.update(code=code, last=last)


def do_spawn(file: str, away: bool = False) -> None:
    """Start a process that holds the pipes, of the same group or away from it, and write its id down."""
    code = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"]
    child = subprocess.Popen(code, start_new_session=away)
    Path(file).write_text(str(child.pid))


def do_sleep(seconds: float) -> None:
    time.sleep(seconds)


def do_again() -> int:
    state["asked"] += 1
    return int(state["asked"]) - 1


def do_read_slowly(times: int) -> list[int]:
    """How much so many reads from the input give each."""
    return [len(os.read(0, 65536)) for _ in range(times)]


def do_read_hex(size: int) -> str:
    """So many bytes from the input."""
    data = b""
    while len(data) < size:
        data += os.read(0, size - len(data))
    return data.hex()


def main() -> None:
    # Unbuffered, so that what was not asked for stays in the pipe.
    pending = b""
    while True:
        while b"\n" not in pending:
            data = os.read(0, 65536)
            if not data:
                if state["stay"]:
                    time.sleep(600)
                write(state["last"].encode())
                sys.exit(3 if pending else state["code"])
            pending += data
        line, pending = pending.split(b"\n", 1)
        try:
            message = json.loads(line)
            message = message.get("json", message)
        except (ValueError, RecursionError):
            sys.exit(3)
        if message.get("type") != "request":
            continue
        method, args = message["method"], message["args"]
        if method == "kkrpc.hello":
            args = {"result": OPTIONS.get("hello", {"protocol": 1, "features": FEATURES})}
        elif method == "later":
            args = {}
        else:
            args = answer(method, args)
        answered = {"id": message["id"], "method": "", "args": args, "type": "response", "version": "json"}
        write(json.dumps(answered).encode() + b"\n")
        if method == "later":
            do_say(*message["args"])
        elif method == "reset" and "after_reset" in state:
            do_say(state.pop("after_reset"))


if __name__ == "__main__":
    main()
