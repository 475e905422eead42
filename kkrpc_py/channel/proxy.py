"""`Remote`: the other side's API as an object whose attributes are its paths.

This module owns the names; sending is `channel.call`'s.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from kkrpc_py.channel.call import Call, CallOptions, ProxyHost, Question, checked_timeout
from kkrpc_py.wire.messages import Construct, Get, Request, Set

__all__ = ["Remote"]


class Remote:
    """A path on the other side: `api.math.add` names a method, `api.math.add(1, 2)` is a `Call` of it.

    `await api.counter` reads a property. `api.slow.with_options(timeout=2)(1)` calls with options of its own;
    a remote method of that very name is `api["with_options"]`.

    An attribute that was named once is kept in the instance's own dict, where Python finds it by itself;
    `api[name]` keeps nothing, and is for names that are made up as the program runs.
    """

    __kkrpc_unlisted__ = True
    _kk_host: ProxyHost
    _kk_path: str
    _kk_options: CallOptions | None

    def __init__(self, host: ProxyHost, path: str, options: CallOptions | None = None) -> None:
        self.__dict__.update(_kk_host=host, _kk_path=path, _kk_options=options)

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
        path = f"{self._kk_path}.{name}" if self._kk_path else name
        return Remote(self._kk_host, path, self._kk_options)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Call[Any]:
        if not self._kk_path:
            raise TypeError("call a method of the API, not the API itself")
        if not kwargs:
            return Call(self._kk_host, self._kk_path, list(args), self._kk_options)
        question = Question(Request(None, self._kk_path, list(args), kwargs=kwargs), self._kk_path, "call")
        return Call(self._kk_host, self._kk_path, list(args), self._kk_options, question)

    def _kk_bind(self, args: list[Any], kwargs: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Where a typed proxy puts arguments by its signature."""
        return args, kwargs

    def with_options(
        self,
        *,
        timeout: float | UnsetType | None = UNSET,
        metadata: Mapping[str, Any] | None = None,
    ) -> Remote:
        """The same path, and all below it, for calls with a timeout or metadata of their own.

        :param timeout: seconds, or None for no end; left out: the channel's.
        :param metadata: goes on top of what the channel's provider gives.
        """
        options = self._kk_options or CallOptions()
        if timeout is not UNSET:
            checked_timeout(timeout)
            options = msgspec.structs.replace(options, timeout=timeout)
        if metadata is not None:
            if not isinstance(metadata, Mapping):
                raise TypeError(f"metadata is a mapping, not {metadata!r}")
            merged = {**(options.metadata or {}), **metadata}
            options = msgspec.structs.replace(options, metadata=merged)
        return Remote(self._kk_host, self._kk_path, options)

    def __await__(self) -> Generator[Any, Any, Any]:
        """The value of the property at this path."""
        return get(self).__await__()

    # Without these, a for loop would take __getitem__ for a sequence, and never end.
    __iter__ = None

    def __repr__(self) -> str:
        return f"<Remote {self._kk_path or 'API'!r}>"


def get(target: Remote) -> Call[Any]:
    """The call that reads the property."""
    path = _property(target)
    return Call(
        target._kk_host, path, [], target._kk_options, Question(Get(None, _segments(path)), path, "get")
    )


def set_(target: Any, value: Any) -> Call[Any]:
    """The call that writes the property."""
    path = _property(target)
    question = Question(Set(None, _segments(path), value), path, "set")
    return Call(target._kk_host, path, [], target._kk_options, question)


def construct(target: Any, args: list[Any], kwargs: dict[str, Any]) -> Call[Any]:
    """The call that makes an instance."""
    path = _property(target)
    args, kwargs = target._kk_bind(args, kwargs)
    question = Question(Construct(None, path, args, kwargs=kwargs or None), path, "construct")
    return Call(target._kk_host, path, args, target._kk_options, question)


def _property(target: Any) -> str:
    if not isinstance(target, Remote):
        raise TypeError(
            f"name a path of the remote API, such as api.settings.theme, not a {type(target).__name__}"
        )
    if not target._kk_path:
        raise TypeError("name a path of the API, not the API itself")
    return target._kk_path


def _segments(path: str) -> tuple[str, ...]:
    return tuple(path.split("."))
