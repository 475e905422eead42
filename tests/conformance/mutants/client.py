"""Stands for a testee that `launch.py --serve` forks: `python -S -E client.py SOCKET`.

It imports next to nothing: a run over all cases starts it some hundred times.
"""

import _socket
import struct
import sys

connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0)
connection.connect(sys.argv[1])
rights = struct.pack("3i", 0, 1, 2)
connection.sendmsg([b"\0"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
# The pipes are the testee's now: a copy here would keep the kit from seeing that it has closed its own.
import os  # noqa: E402 - a later start is what this is about; it is built in by now

null = os.open(os.devnull, os.O_RDWR)
for number in range(3):
    os.dup2(null, number)
status = connection.recv(4)
code = struct.unpack("i", status)[0] if len(status) == 4 else 1
if code < 0:
    os.kill(os.getpid(), -code)
os._exit(code)
