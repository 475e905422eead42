"""What ends a child when its parent is killed and can end nothing any more.

Owns one small shell per child. The shell waits for the end of a pipe that the parent alone holds
open, and that the kernel closes however the parent dies; it then ends the child's process group.
Decision 0103 says why it is not PR_SET_PDEATHSIG.
"""

from __future__ import annotations

import logging
import os
import subprocess
from typing import Final

from kkrpc_py.transports.descriptors import open_pipe

__all__ = ["Guard"]

_log = logging.getLogger("kkrpc_py.child")

_SHELL: Final = "/bin/sh"
# A line dismisses the shell. The pipe's end without a line means that the parent is gone: the child has
# a second to end by itself, as a kkrpc_py child does when its stdin ends.
_SCRIPT: Final = 'read -r line && exit; sleep 1; kill -s KILL -- "-$1"'


class Guard:
    """Ends the process group `group` should this process die before it calls `dismiss`.

    Where it cannot be started there is a warning, and no guard.
    """

    def __init__(self, group: int) -> None:
        self._shell: subprocess.Popen[bytes] | None = None
        self._pipe: int | None = None
        try:
            shells_end, self._pipe = open_pipe()
            try:
                self._shell = subprocess.Popen(
                    [_SHELL, "-c", _SCRIPT, "kkrpc_py-guard", str(group)],
                    stdin=shells_end,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env={"PATH": os.environ.get("PATH", os.defpath)},
                    # Whatever ends the parent's group or session must not end the guard.
                    start_new_session=True,
                )
            finally:
                os.close(shells_end)
        except OSError as exc:
            _log.warning(
                "child %d has no guard, and may outlive this process if that is killed: %s", group, exc
            )

    def dismiss(self) -> None:
        """End the guard; the group is left alone."""
        if self._shell is not None:
            self._shell.kill()
            self._shell.wait()
            self._shell = None
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None
