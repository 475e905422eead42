"""`Remote`: the other side's API as an object whose attributes are its paths.

This module owns the names; sending is `channel.call`'s.
"""

from __future__ import annotations

from typing import Any

from kkrpc_py.channel.call import Call, CallHost

__all__ = ["Remote"]


class Remote:
    """A path on the other side: `api.math.add` names a method, `api.math.add(1, 2)` is a `Call` of it.

    An attribute that was named once is kept in the instance's own dict, where Python finds it by itself;
    `api[name]` keeps nothing, and is for names that are made up as the program runs.
    """

    _kk_host: CallHost
    _kk_path: str

    def __init__(self, host: CallHost, path: str) -> None:
        self.__dict__.update(_kk_host=host, _kk_path=path)

    def __getattr__(self, name: str) -> Remote:
        # Names with an underscore are refused by every peer, and Python itself asks for such.
        if name.startswith("_"):
            raise AttributeError(f"{name!r} cannot be a remote name: it begins with an underscore")
        found = self.__dict__[name] = self[name]
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{name!r} cannot be set: it is a name on the other side")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name!r} cannot be deleted: it is a name on the other side")

    def __getitem__(self, name: str) -> Remote:
        """The same as an attribute, for names that are no Python identifiers."""
        if not isinstance(name, str):
            raise TypeError("a remote name is a string")
        return Remote(self._kk_host, f"{self._kk_path}.{name}" if self._kk_path else name)

    def __call__(self, *args: Any) -> Call[Any]:
        if not self._kk_path:
            raise TypeError("call a method of the API, not the API itself")
        return Call(self._kk_host, self._kk_path, list(args))

    # Without these, a for loop would take __getitem__ for a sequence, and never end.
    __iter__ = None

    def __repr__(self) -> str:
        return f"<Remote {self._kk_path or 'API'!r}>"
