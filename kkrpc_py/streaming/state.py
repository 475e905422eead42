"""`SharedState`: the server's end of a value that clients follow, and may change where they are allowed to.

It owns the order of changes, who conflicts with whom, and what the subscribers of the state's stream are sent
(STA-2, STA-5 to STA-8). Subscribing, replay and authorization are the hub's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from kkrpc_py.errors import NotSerializable, StateConflict, StreamClosed
from kkrpc_py.limits import Limits
from kkrpc_py.streaming import patches
from kkrpc_py.streaming.diffs import make
from kkrpc_py.streaming.documents import DocumentRules, copied, same
from kkrpc_py.streaming.places import Place, overlap, touched
from kkrpc_py.streaming.state_view import StateView
from kkrpc_py.wire.shared import Shared

if TYPE_CHECKING:
    from kkrpc_py.streaming.outbound import OutboundStream

__all__ = ["STATE_ID", "SharedState"]

STATE_ID: Final = "state"
"""The id of its stream (STA-1)."""


class SharedState(StateView):
    """A value of what JSON has, with a version; made by `StreamHub.shared_state`.

    ::

        state = hub.shared_state("my-plugin:history", initial={"messages": []})
        with state.mutate() as draft:
            draft["messages"].append({"text": "hello"})

    Each change goes to all clients that follow it, as a patch. Like its hub it belongs to one event loop.
    """

    def __init__(
        self,
        stream: OutboundStream[Any],
        *,
        initial: Any,
        writable: bool = False,
        limits: Limits,
        replay_window: int = 256,
        close: Callable[[], None] | None = None,
    ) -> None:
        """`stream` numbers its chunks from 2. Raises NotSerializable, LimitExceeded, ModuleNotFoundError."""
        patches.library()  # so that it is missed here, and not at the first change
        super().__init__(stream.name)
        self.writable = writable
        """Clients may change it, too; may be set at any time."""
        self._stream = stream
        self._close = close if close is not None else stream.close
        self._limits = limits
        self._rules = DocumentRules(limits)
        self._rules.check(initial, "initial")
        self._document, self._version = copied(initial), 1
        self._window: deque[frozenset[Place]] = deque(maxlen=replay_window)
        """The places of the last changes, the newest last."""
        self._shared: tuple[int, Shared] = (0, stream.writer.share(None))
        """The last snapshot, and its version."""
        stream.snapshot = self._snapshot

    @property
    def closed(self) -> bool:
        """It has been closed: its value stays, and cannot be changed any more."""
        return self._stream.closed

    def close(self) -> None:
        """End it for all clients, and give its name up."""
        self._close()

    # Changes of this side ------------------------------------------------------------------

    @contextmanager
    def mutate(self) -> Generator[Any]:
        """Change it: the block changes a draft, a copy of the value in place; at its end that is published.

        A block that changes nothing makes no version; one that is left by an exception changes nothing.
        Where the block awaits, and the state changes meanwhile, both changes count unless they touch the same
        places: then this one raises StateConflict, and may be tried again.

        Raises at the end of the block, with the state as it was: NotSerializable for a value that JSON does
        not have, with its path; LimitExceeded where the state would be too large for a frame; StreamClosed.
        At its beginning: TypeError where the value is no list and no mapping (see `set`), RuntimeError on
        another thread than the hub's.
        """
        self._check_open()
        base, version = self._document, self._version
        if type(base) is not dict and type(base) is not list:
            raise TypeError(
                f"the value is of type {type(base).__name__}, which no block can change: use set()"
            )
        draft = copied(base)
        yield draft
        self._check_open()
        self._take(base, draft, version)

    def set(self, value: Any) -> int:
        """Put another value in the place of the whole; returns the version. Raises what `mutate` raises."""
        self._check_open()
        return self._take(self._document, value, self._version)

    def _take(self, base: Any, value: Any, version: int) -> int:
        """Make of it what `value` has that `base`, which was `version`, had not."""
        self._rules.check(value)
        # Copied, since the block may have kept parts of its draft, and for its tuples.
        patch = copied(make(base, value))
        return self._apply(patches.checked(patch), version) if patch else self._version

    # Changes of clients ----------------------------------------------------------------------

    def mutate_for_peer(self, version: Any, patch: Any) -> int:
        """Apply a client's patch, made against `version`; the version that came of it (STA-6).

        Raises, in this order: PermissionError; ValueError for what is no version or no patch; StateConflict;
        ValueError for a patch that does not fit, or makes what is no state; LimitExceeded (STA-9).
        """
        self._check_open()
        if not self.writable:
            raise PermissionError(f"the shared state {self.name!r} may not be changed by clients")
        if type(version) is not int or version < 1:
            raise ValueError("the version of a shared state is an integer from 1 on")
        operations = patches.checked(patch)
        if not operations:
            return self._version
        try:
            self._rules.check([operation.value for operation in operations], "the values of the patch")
            return self._apply(operations, version)
        except NotSerializable as error:
            raise ValueError(f"the patch is refused: {error}") from None

    # Both --------------------------------------------------------------------------------------

    def _apply(self, operations: list[patches.Operation], version: int) -> int:
        """Apply what was made against `version` to what there is now, and publish it."""
        places = touched(operations, self._document)
        if version != self._version:
            self._refuse_conflicts(places, version)
        document = patches.apply(self._document, operations, room=self._limits.frame)
        if same(document, self._document):
            return self._version
        self._rules.check(document)
        patch = [operation.plain() for operation in operations]
        self._stream.write({"patch": patch})
        self._window.append(places)
        self._become(self._stream.log.next - 1, document, patch)
        return self._version

    def _refuse_conflicts(self, places: frozenset[Place], version: int) -> None:
        """Raises StateConflict where a change since `version` has touched one of the places (STA-7)."""
        newer = self._version - version
        if newer < 0:
            reason = f"there was no version {version}; the newest is {self._version}"
        elif newer > len(self._window):
            reason = f"version {version} is too old, the newest is {self._version}"
        elif overlap(places, islice(self._window, len(self._window) - newer, None)):
            reason = f"what it changes has changed since version {version}; the newest is {self._version}"
        else:
            return
        raise StateConflict(f"the change of {self.name!r} was not made: {reason}", self._version)

    def _snapshot(self) -> Shared:
        """The chunk that stands for all before it (STA-3, STA-4)."""
        if self._shared[0] != self._version:
            chunk = self._stream.writer.share_numbered(self._version, {"value": self._document})
            self._shared = (self._version, chunk)
        return self._shared[1]

    def _check_open(self) -> None:
        self._stream._check_thread()
        if self.closed:
            raise StreamClosed(f"the shared state {self.name!r} was closed")

    def __repr__(self) -> str:
        return f"<SharedState {self.name!r} version={self._version}>"
