"""`RemoteError`, and the classes that a remote error may be an instance of besides.

A name that a peer sends chooses among a fixed list of builtins and the classes that the user has
registered, and nothing else. No code of the user's runs with what a peer sent: an instance of a registered
class is made without its `__new__` and `__init__`, and what the class defines for Python's own use, such as
`__setattr__` or `__reduce__`, is not in force on it.
"""

from __future__ import annotations

import builtins
import inspect
import types
import weakref
from collections.abc import Iterable
from typing import Any, ClassVar

from kkrpc_py.errors.library import KkrpcError

__all__ = [
    "CallbackReleased",
    "ErrorRegistry",
    "MethodNotFound",
    "PropertyNotFound",
    "RemoteError",
    "make_remote",
]


class RemoteError(KkrpcError):
    """The peer's handler raised.

    Where the remote name is that of a builtin `Exception` subclass on a fixed list, or of a class that the
    channel was given, the error raised is an instance of that as well: `except ValueError` catches it. What
    caused it there, where that is an error too, is its `__cause__`.
    """

    def __init__(
        self,
        name: str,
        message: str,
        *,
        remote_traceback: str | None = None,
        cause: Any = None,
        fields: dict[str, Any] | None = None,
    ) -> None:
        """`cause` and `fields` are values as they came: the error's cause, and its other fields."""
        # KeyError and friends print their argument's repr; the text is ours to choose.
        super().__init__(message)
        self.name = name
        self.message = message
        self.remote_traceback = remote_traceback
        self.cause = cause
        self.fields = fields if fields is not None else {}

    def __str__(self) -> str:
        if type(self).__name__ == self.name or not self.name:
            return self.message
        return f"{self.name}: {self.message}" if self.message else self.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.message!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        values = (self.name, self.message, self.remote_traceback, self.cause, self.fields)
        return (_again, (None, *values), self._state())

    def _state(self) -> dict[str, Any] | None:
        """What a copy keeps besides: notes, a chain of causes, and what was set on this instance."""
        state = {key: value for key, value in vars(self).items() if key not in _OWN}
        if isinstance(self.__cause__, RemoteError):
            state["__cause__"] = self.__cause__
        return state or None


_OWN = frozenset(("name", "message", "remote_traceback", "cause", "fields"))


class _Refusal(RemoteError):
    """What the peer's library answers, and no handler of its: there is nothing but the text."""

    def __init__(self, message: str) -> None:
        super().__init__(type(self).__name__, message)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.message,), self._state())


class MethodNotFound(_Refusal):
    """Nothing callable, or nothing to construct, is exposed under the name that was called."""


class PropertyNotFound(_Refusal):
    """Nothing is exposed under the path that was read or set, or it may not be."""


class CallbackReleased(_Refusal):
    """The callback that was called has been released by its owner, or was never given."""


# --- builtins -------------------------------------------------------------------------------

# Names that a remote error may be caught by. Nothing that steers the interpreter or an event
# loop is on it: a peer must not be able to end a generator or a process by naming an error so.
_BUILTIN_NAMES = (
    "ArithmeticError AssertionError AttributeError BlockingIOError BrokenPipeError BufferError "
    "ChildProcessError ConnectionAbortedError ConnectionError ConnectionRefusedError "
    "ConnectionResetError EOFError FileExistsError FileNotFoundError FloatingPointError "
    "IndexError InterruptedError IsADirectoryError KeyError LookupError MemoryError NameError "
    "NotADirectoryError NotImplementedError OSError OverflowError PermissionError "
    "ProcessLookupError RecursionError ReferenceError RuntimeError TimeoutError TypeError "
    "UnboundLocalError ValueError ZeroDivisionError"
).split()

_remote_classes: dict[str, type[RemoteError]] = {
    name: type(
        name,
        (RemoteError, getattr(builtins, name)),
        {"__module__": "kkrpc_py.errors", "__doc__": RemoteError.__doc__},
    )
    for name in _BUILTIN_NAMES
}

OS_FIELDS = {"errno": int, "strerror": str, "filename": str, "filename2": str}
"""Attributes of an OSError that cross as fields, and the only type in which they are taken."""


# --- the users' own classes -----------------------------------------------------------------


class _Own:
    """An attribute that is RemoteError's whatever a registered class has under its name."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else vars(instance)[self._name]

    def __set__(self, instance: Any, value: Any) -> None:
        vars(instance)[self._name] = value


class _Registered(RemoteError):
    """A remote error that is an instance of a class of the user's as well, which comes after this one."""

    _kk_class: ClassVar[type[Exception]]
    _kk_closed: ClassVar[frozenset[str]]
    """Names that a field is not set under: the class means something by them."""

    name: Any = _Own()
    message: Any = _Own()
    remote_traceback: Any = _Own()
    cause: Any = _Own()
    fields: Any = _Own()

    # What the user's class may define, for instances that its own `__init__` has made.
    __str__ = RemoteError.__str__
    __repr__ = RemoteError.__repr__
    __eq__ = object.__eq__
    __hash__ = object.__hash__
    __getattribute__ = object.__getattribute__
    __setattr__ = BaseException.__setattr__
    __delattr__ = BaseException.__delattr__
    __reduce_ex__ = object.__reduce_ex__
    __setstate__ = BaseException.__setstate__
    __copy__ = None
    __deepcopy__ = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Not passed on: a class of the user's that keeps track of its subclasses does not hear of ours."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> tuple[Any, ...]:
        values = (self.name, self.message, self.remote_traceback, self.cause, self.fields)
        return (_again, (self._kk_class, *values), self._state())


_combined: weakref.WeakValueDictionary[type[Exception], type[_Registered]] = weakref.WeakValueDictionary()


def _combine(cls: type[Exception]) -> type[_Registered]:
    """The class of the remote errors that are instances of `cls`; TypeError where there can be none."""
    found = _combined.get(cls)
    if found is None:
        names = {"__module__": cls.__module__, "__doc__": cls.__doc__, "__qualname__": cls.__qualname__}
        try:
            found = types.new_class(cls.__name__, (_Registered, cls), {}, lambda space: space.update(names))
        except Exception as exc:
            raise TypeError(f"{cls.__qualname__} cannot be raised for a remote error: {exc}") from exc
        found._kk_class = cls
        found._kk_closed = _closed_names(found)
        _combined[cls] = found
    return found


def _closed_names(cls: type) -> frozenset[str]:
    """Every name that the class or its bases define, but for slots and the defaults of annotated fields."""
    closed: set[str] = set()
    declared: set[str] = set()
    for base in reversed(cls.__mro__):
        declared |= _declared(base)
        for name, value in vars(base).items():
            is_slot = type(value) is types.MemberDescriptorType and _is_python_class(base)
            is_default = name in declared and not hasattr(type(value), "__get__")
            if is_slot or is_default:
                closed.discard(name)
            else:
                closed.add(name)
    return frozenset(closed)


def _declared(cls: type) -> set[str]:
    """Names that the body of a class annotates as its instances'."""
    try:
        return {name for name, kind in inspect.get_annotations(cls).items() if "ClassVar" not in str(kind)}
    except Exception:  # evaluated where they are asked for, from Python 3.14 on
        return set()


def _is_python_class(cls: type) -> bool:
    return bool(cls.__flags__ & 1 << 9)  # Py_TPFLAGS_HEAPTYPE


# What steers the interpreter, and what `except` treats in a way of its own.
_NEVER = (StopIteration, StopAsyncIteration, Warning, BaseExceptionGroup)
_RESERVED = frozenset(
    "CallCancelled CallbackReleased InternalError LimitExceeded MethodNotFound PropertyNotFound "
    "ProtocolError RPCValidationError ValidationFailed".split()
)
"""Names that the protocol, or this library, gives a meaning of its own."""


class ErrorRegistry:
    """The exception classes of the user's that one channel's remote errors may be instances of.

    They are known by their bare names, as they are sent. A class that is given twice, two classes of one
    name, one with the name of a builtin that it is no subclass of, and a name of this library's own raise
    ValueError; what is no `Exception` subclass, or steers the interpreter, TypeError.
    """

    def __init__(self, classes: Iterable[type[Exception]] = ()) -> None:
        self._classes: dict[str, type[_Registered]] = {}
        cls: Any  # whatever was given
        for cls in classes:
            if not (isinstance(cls, type) and issubclass(cls, Exception)):
                raise TypeError(f"{cls!r} is no subclass of Exception")
            if issubclass(cls, _NEVER):
                raise TypeError(f"{cls.__qualname__} is never raised for a remote error")
            name = cls.__name__
            if name in _RESERVED:
                raise ValueError(f"the name {name!r} is kkrpc_py's own")
            if name in self._classes:
                raise ValueError(f"two of the error classes are named {name!r}")
            if name in _remote_classes and not issubclass(cls, getattr(builtins, name)):
                raise ValueError(f"{name!r} is the name of a builtin that {cls!r} is no subclass of")
            self._classes[name] = _combine(cls)

    def get(self, name: str) -> type[_Registered] | None:
        """The class of the errors that come under `name`."""
        return self._classes.get(name)


def make_remote(
    name: str,
    message: str,
    remote_traceback: str | None,
    cause: Any,
    fields: dict[str, Any],
    registry: ErrorRegistry | None = None,
) -> RemoteError:
    """A RemoteError of the class that `name` stands for."""
    registered = registry.get(name) if registry is not None else None
    exc: RemoteError
    if registered is None:
        cls = _remote_classes.get(name, RemoteError)
        exc = cls(name, message, remote_traceback=remote_traceback, cause=cause, fields=fields)
    else:
        exc = _made(registered, message)
        exc.name, exc.message, exc.remote_traceback = name, message, remote_traceback
        exc.cause, exc.fields = cause, fields
        for key, value in fields.items():
            if key not in registered._kk_closed and key.isidentifier() and not key.startswith("_"):
                setattr(exc, key, value)
    if isinstance(exc, OSError):
        for key, kind in OS_FIELDS.items():
            if type(fields.get(key)) is kind:
                setattr(exc, key, fields[key])
    return exc


def _made(cls: type[_Registered], message: str) -> _Registered:
    """An instance of `cls` as its builtin base makes it: no Python code runs."""
    builtin: Any = cls
    while _is_python_class(builtin):
        builtin = builtin.__base__
    exc: _Registered = builtin.__new__(cls)
    try:
        builtin.__init__(exc, message)
    except TypeError:  # one that takes more, as UnicodeDecodeError does
        pass
    exc.args = (message,)
    return exc


def _again(
    cls: type[Exception] | None,
    name: str,
    message: str,
    remote_traceback: str | None,
    cause: Any,
    fields: dict[str, Any],
) -> RemoteError:
    """A copy of one that was an instance of `cls`, a registered class."""
    registry = None if cls is None else ErrorRegistry([cls])
    return make_remote(name, message, remote_traceback, cause, fields, registry)
