"""The reference testee as a mutant.

    python launch.py NAME [arguments of the testee]
    python launch.py --serve SOCKET NAME

The second form imports everything once, and forks a testee for each `client.py` that connects: a run over all
cases starts some hundred processes, and the imports are nearly all that a short one does. `client.py` is the
command to run then; it hands its standard descriptors over, and exits as the testee does.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import struct
import sys
from pathlib import Path

# In front: a script's own folder is where Python looks first, and it is no package's.
sys.path[0] = str(Path(__file__).resolve().parents[3])

from tests.conformance.mutants.mutant import Mutant, Patching  # noqa: E402 - only now is the way to it known
from tests.conformance.mutants.table import MUTANTS  # noqa: E402 - the same

UNPATCHED = "-"
"""The name of the testee as it is."""


def main() -> None:
    if sys.argv[1] == "--serve":
        _, _, path, name = sys.argv
        del sys.argv[1:]
        _patch(name)
        _serve(path)
    else:
        _patch(sys.argv.pop(1))
        from kkrpc_py.conformance import testee

        testee.main()


def _patch(name: str) -> None:
    if name == UNPATCHED:
        return
    mutant = next((each for each in MUTANTS if each.name == name), None)
    if mutant is None:
        sys.exit(f"there is no mutant {name!r}")
    sys.meta_path.insert(0, Patching(mutant))
    _import(mutant)


def _import(mutant: Mutant) -> None:
    """Stale patches are found here, at the latest, and not with the first value that needs the module."""
    __import__(mutant.module)


def _serve(path: str) -> None:
    # What a testee imports late, if at all.
    from anyio._backends import _asyncio  # noqa: F401 - imported for the children

    from kkrpc_py.channel import validation  # noqa: F401 - imported for the children
    from kkrpc_py.conformance import testee, testee_words  # noqa: F401 - imported for the children
    from kkrpc_py.wire import cbor_codec, superjson_reader, superjson_writer  # noqa: F401 - the same

    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that `_look_after` runs in
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return  # whoever started this has ended
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _look_after(connection)
            os._exit(0)
        connection.close()


def _look_after(connection: socket.socket) -> None:
    """Run one testee; its client is told how it ended, and where the client is killed so is the testee."""
    _, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
    child = os.fork()
    if child == 0:
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        connection.close()
        _run()
    for descriptor in descriptors:
        os.close(descriptor)
    for number in range(3):
        os.close(number)  # the server's own
    ended = os.pidfd_open(child)
    ready, _, _ = select.select([ended, connection], [], [])
    if ended not in ready:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if ended in ready:
        connection.sendall(struct.pack("i", os.waitstatus_to_exitcode(status)))


def _run() -> None:
    from kkrpc_py.conformance import testee

    code: object = 1
    try:
        testee.main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    main()
