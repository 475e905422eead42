"""What ends a child when the parent is killed and can end nothing any more.

Owns one small shell per child. It waits for the end of a pipe that only the parent holds open: the
kernel closes it however the parent dies, and the shell then ends the child's process group. See
design decision 0103 for why it is neither PR_SET_PDEATHSIG nor a launcher.
"""

from __future__ import annotations

import logging
import os
import subprocess
from typing import Final

from kkrpc_py.transports.descriptors import open_pipe

__all__ = ["Guard"]

_log = logging.getLogger("kkrpc_py.child")

# A line on stdin dismisses the shell; the end of stdin without one means that the parent is gone.
# The child has a second to end by itself, which a kkrpc_py child does when its stdin ends.
_SCRIPT: Final = 'read -r line && exit; sleep 1; kill -KILL -- "-$1"'


class Guard:
    """Watches over the process group `group` until dismissed."""

    def __init__(self, group: int) -> None:
        self._shell: subprocess.Popen[bytes] | None = None
        read_fd, self._write_fd = open_pipe()
        try:
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", _SCRIPT, "kkrpc_py-guard", str(group)],
                stdin=read_fd,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={},
                start_new_session=True,
            )
        except OSError as exc:
            _log.warning("no guard for child %d: it may outlive a killed parent (%s)", group, exc)
        finally:
            os.close(read_fd)

    def dismiss(self) -> None:
        """End the shell without harm to the group."""
        os.close(self._write_fd)
        if self._shell is not None:
            self._shell.kill()
            self._shell.wait()
            self._shell = None
