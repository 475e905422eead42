"""Exceptions to error values and back: the mapping alone, without a channel (spec, section 6)."""

from __future__ import annotations

import abc
import builtins
import copy
import dataclasses
import gc
import json
import pickle
import traceback
from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kkrpc_py.errors import (
    ActionError,
    CallbackReleased,
    CallCancelled,
    CallTimeout,
    ChannelClosed,
    ErrorRegistry,
    ErrorValue,
    InternalError,
    KkrpcError,
    LimitExceeded,
    MethodNotFound,
    PropertyNotFound,
    ProtocolError,
    RemoteError,
    ValidationFailed,
    ValidationIssue,
    error_from_wire,
    error_to_wire,
)
from tests.naming import shown


def crossed(exc: BaseException, *classes: type[Exception], tracebacks: bool = False) -> KkrpcError:
    """What a caller gets of `exc`: to the wire, through JSON, and back."""
    value = error_to_wire(exc, with_traceback=tracebacks)
    again = ErrorValue(
        value.name,
        value.message,
        value.stack,
        value.cause if value.cause is msgspec.UNSET else json.loads(json.dumps(value.cause)),
        json.loads(json.dumps(value.fields)),
        value.bare,
    )
    return error_from_wire(again, ErrorRegistry(classes))


def remote(exc: BaseException, *classes: type[Exception], tracebacks: bool = False) -> RemoteError:
    found = crossed(exc, *classes, tracebacks=tracebacks)
    assert isinstance(found, RemoteError)
    return found


def raised(act: Callable[[], Any]) -> Exception:
    try:
        act()
    except Exception as exc:
        return exc
    raise AssertionError("nothing was raised")


# --- what the library says ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Method nope is not a function", MethodNotFound),
        ("Method path a.b not found at a", MethodNotFound),
        ("No API implementation available", MethodNotFound),
        ("shop.Basket is not a constructor function", MethodNotFound),
        ("Constructor path shop.Basket not found at shop", MethodNotFound),
        ("Property path a.b not found at b", PropertyNotFound),
        ("Property a is read-only", RemoteError),
        ("no such user", RemoteError),
        ("Method is nice", RemoteError),
        ("The path is not found at home", RemoteError),
    ],
)
def test_a_bare_text_says_what_was_not_found(text: str, kind: type[RemoteError]) -> None:
    found = error_from_wire(ErrorValue("Error", text, bare=True))
    assert (type(found), found.args) == (kind, (text,))
    if kind is not RemoteError:
        again = error_to_wire(found)
        assert (again.message, again.bare) == (text, True)
        copied = pickle.loads(pickle.dumps(found))  # noqa: S301 - made here
        assert (type(copied), str(copied)) == (kind, text)


@pytest.mark.parametrize("kind", [CallbackReleased, LimitExceeded, CallCancelled, ProtocolError])
def test_the_protocols_own_errors_are_themselves_on_the_other_side(kind: type[KkrpcError]) -> None:
    found = crossed(kind("so it is"))
    assert (type(found), str(found)) == (kind, "so it is")


def test_a_fault_of_the_library_says_no_more_than_its_name() -> None:
    try:
        raise InternalError("internal error") from ValueError("a secret")
    except InternalError as exc:
        exc.add_note("another")
        value = error_to_wire(exc)
    assert value == ErrorValue("InternalError", "internal error")
    error = RuntimeError("outer")
    error.__cause__ = exc_with_cause = InternalError("internal error")
    exc_with_cause.__cause__ = ValueError("a secret")
    assert error_to_wire(error).cause == {"name": "InternalError", "message": "internal error"}


# --- validation -----------------------------------------------------------------------------


def test_validation_crosses_in_kkrpcs_own_shape() -> None:
    issues = [ValidationIssue((0, "items", 3), "Expected `int`, got `str`"), ValidationIssue((), "too much")]
    error = ValidationFailed("shop.order", "input", issues)
    assert str(error) == (
        "the input of 'shop.order' is invalid: [0]['items'][3]: Expected `int`, got `str`; too much"
    )
    value = error_to_wire(error)
    assert value.name == "RPCValidationError"
    assert value.fields == {
        "phase": "input",
        "method": "shop.order",
        "issues": [
            {"message": "Expected `int`, got `str`", "path": [0, "items", 3]},
            {"message": "too much", "path": []},
        ],
    }
    found = crossed(error)
    assert isinstance(found, ValidationFailed)
    assert isinstance(found, ValueError)
    assert not isinstance(found, RemoteError)
    assert (found.method, found.phase, found.issues) == ("shop.order", "input", issues)
    assert str(found) == str(error)
    copied = pickle.loads(pickle.dumps(found))  # noqa: S301 - made here
    assert (copied.issues, str(copied)) == (issues, str(error))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("", "input", [])),
        ({"method": 1, "phase": [], "issues": {"a": 1}}, ("", "input", [])),
        ({"method": "m", "phase": "output", "issues": None}, ("m", "output", [])),
        ({"issues": [None, "text", 3, [], {}]}, ("", "input", [((), m) for m in ("", "text", "", "", "")])),
        ({"issues": [{"message": 1, "path": "abc"}]}, ("", "input", [((), "")])),
        (
            {"issues": [{"message": "m", "path": [{"key": "a"}, 1.0, 2.5, True, None, {}, [1], 10**5000]}]},
            (
                "",
                "input",
                [(("a", 1, "<float>", "<bool>", "<NoneType>", "<NoneType>", "<list>", 10**5000), "m")],
            ),
        ),
    ],
)
def test_odd_validation_errors_are_read_as_far_as_they_go(fields: dict[str, Any], expected: Any) -> None:
    found = error_from_wire(ErrorValue("RPCValidationError", "no", fields=fields))
    assert isinstance(found, ValidationFailed)
    assert (found.method, found.phase, [(i.path, i.message) for i in found.issues]) == expected
    assert str(found) == "no"


def test_a_validation_error_without_a_message_gets_one() -> None:
    fields = {"method": "m", "issues": [{"message": "bad", "path": [0]}]}
    assert str(error_from_wire(ErrorValue("RPCValidationError", "", fields=fields))) == (
        "the input of 'm' is invalid: [0]: bad"
    )


# --- the users' own classes -----------------------------------------------------------------


class OutOfStock(Exception):
    def __init__(self, sku: str, left: int) -> None:
        super().__init__(f"{sku}: {left} left")
        self.sku = sku
        self.left = left

    def summary(self) -> str:
        return f"{self.left} of {self.sku}"

    @property
    def urgent(self) -> bool:
        return self.left == 0


@dataclasses.dataclass
class Declined(Exception):
    code: str
    retry: bool = False
    kind: ClassVar[str] = "payment"
    limit = 3

    def __str__(self) -> str:
        return f"declined: {self.code}"


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen(Exception):
    sku: str
    left: int = 1


class Slotted(Exception):
    __slots__ = ("_private", "cause", "sku")

    def __init__(self, sku: str) -> None:
        self.sku = sku
        self._private = 1
        self.cause = "mine"


class DiskTrouble(OSError):
    """An exception with a layout of C's."""

    def __init__(self, drive: str, *, wear: int) -> None:
        super().__init__(5, "no more", "/dev/x")
        self.drive = drive
        self.wear = wear


class Undecodable(UnicodeDecodeError):
    pass


class Newish(ValueError):
    def __new__(cls, a: int, b: int) -> Newish:
        made = super().__new__(cls, a, b)
        made.total = a + b  # type: ignore[attr-defined]  # as a program may
        return made

    def __init__(self, a: int, b: int) -> None:
        super().__init__(a, b)


class Abstract(Exception, abc.ABC):
    @abc.abstractmethod
    def method(self) -> None: ...


class Mine(RemoteError):
    """A user's class below ours."""

    def __init__(self) -> None:
        super().__init__("Mine", "my message", fields={"a": 1})
        self.ready = True

    def __str__(self) -> str:
        return f"my text, {self.ready}"

    __repr__ = __str__


@pytest.mark.parametrize(
    ("error", "attributes"),
    [
        (OutOfStock("bolt", 0), {"sku": "bolt", "left": 0, "urgent": True}),
        (Declined("E1", True), {"code": "E1", "retry": True, "kind": "payment", "limit": 3}),
        (Frozen("nut", 2), {"sku": "nut", "left": 2}),
        (Slotted("nail"), {"sku": "nail"}),
        (
            DiskTrouble("sda", wear=9),
            {"drive": "sda", "wear": 9, "errno": 5, "strerror": "no more", "filename": "/dev/x"},
        ),
        (Undecodable("utf-8", b"\xff", 0, 1, "bad"), {}),
        (Newish(1, 2), {"total": 3}),
        (Mine(), {"a": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_of_a_registered_class_is_one_here(error: Exception, attributes: dict[str, Any]) -> None:
    kind = type(error)
    found = remote(error, kind)
    assert isinstance(found, kind)
    assert (found.name, found.message) == (kind.__name__, error_to_wire(error).message)
    assert (str(found), found.args) == (found.message, (found.message,))
    assert repr(found) == f"{kind.__name__}({kind.__name__!r}, {found.message!r})"
    assert {name: getattr(found, name) for name in attributes} == attributes
    assert found.cause is None
    assert type(found).__module__ == kind.__module__
    # Raised, shown and caught like any other.
    with pytest.raises(kind) as caught:
        raise found
    assert found.message in "".join(traceback.format_exception(caught.value))
    # A copy of it is the same again.
    for again in (copy.copy(found), copy.deepcopy(found), pickle.loads(pickle.dumps(found))):  # noqa: S301 - ours
        assert isinstance(again, kind)
        assert isinstance(again, RemoteError)
        assert (again.name, again.message, again.fields) == (found.name, found.message, found.fields)
        assert {name: getattr(again, name) for name in attributes} == attributes
    # The next one gets the same.
    assert error_to_wire(found) == error_to_wire(error)


def test_methods_of_a_registered_class_work_on_its_remote_errors() -> None:
    found: Any = remote(OutOfStock("bolt", 2), OutOfStock)
    assert found.summary() == "2 of bolt"
    assert not found.urgent


def test_without_the_class_the_fields_are_fields() -> None:
    found = remote(OutOfStock("bolt", 2))
    assert type(found) is RemoteError
    assert found.fields == {"sku": "bolt", "left": 2}
    assert not hasattr(found, "sku")
    assert str(found) == "OutOfStock: bolt: 2 left"


class Touchy(Exception):
    """Its own code must not run with anything that a peer sent."""

    ran: ClassVar[list[str]] = []
    subclasses: ClassVar[list[type]] = []
    sku: str
    code = 7

    def __new__(cls, *args: Any) -> Touchy:
        cls.ran.append("__new__")
        return super().__new__(cls, *args)

    def __init__(self, *args: Any) -> None:
        self.ran.append("__init__")

    def __init_subclass__(cls, *, required: int) -> None:
        cls.ran.append("__init_subclass__")

    def _note(name: str) -> Any:  # type: ignore[misc] # noqa: N805 - makes the methods below
        def method(self: Any, *args: Any) -> NoReturn:
            Touchy.ran.append(name)
            raise RuntimeError(name)

        return method

    __setattr__ = _note("__setattr__")
    __delattr__ = _note("__delattr__")
    __getattr__ = _note("__getattr__")
    __str__ = _note("__str__")
    __repr__ = _note("__repr__")
    __eq__ = _note("__eq__")
    __hash__ = _note("__hash__")
    __reduce__ = _note("__reduce__")
    __reduce_ex__ = _note("__reduce_ex__")
    __setstate__ = _note("__setstate__")
    __copy__ = _note("__copy__")
    __deepcopy__ = _note("__deepcopy__")
    add_note = _note("add_note")
    with_traceback = _note("with_traceback")
    name = property(_note("name"), _note("name"))
    message = property(_note("message"), _note("message"))
    fields = property(_note("fields"), _note("fields"))
    writable = property(_note("writable"), _note("writable"))


def test_no_code_of_a_registered_class_runs_with_what_a_peer_sent() -> None:
    registry = ErrorRegistry([Touchy])
    fields = dict.fromkeys(vars(Touchy), 1) | {"sku": "bolt", "__notes__": ["note"], "args": 5, "method": 6}
    value = ErrorValue("Touchy", "text", "a stack", {"name": "Touchy", "message": "inner"}, fields)
    found: Any = error_from_wire(value, registry)
    assert issubclass(type(found), Touchy)
    assert issubclass(type(found), RemoteError)
    assert found.sku == "bolt"
    assert found.code == 7
    assert (found.name, found.message, found.args, str(found)) == ("Touchy", "text", ("text",), "text")
    assert found.__notes__[0] == "note"
    assert isinstance(found.__cause__, Touchy)
    assert found.method == 6
    assert repr(found) == "Touchy('Touchy', 'text')"
    assert found != KeyError()
    assert len({found, found}) == 1
    assert not hasattr(found, "nothing")
    assert "text" in "".join(traceback.format_exception(found))
    pickled = pickle.loads(pickle.dumps(found))  # noqa: S301 - made here
    assert pickled.sku == copy.copy(found).sku == copy.deepcopy(found).sku == "bolt"
    assert error_to_wire(found).fields["sku"] == "bolt"
    del found.sku
    assert not hasattr(found, "sku")
    assert Touchy.ran == []


class Watched(Exception):
    ran: ClassVar[list[str]] = []

    def __getattribute__(self, name: str) -> Any:
        Watched.ran.append(name)
        return super().__getattribute__(name)


def test_a_registered_class_does_not_watch_its_remote_errors() -> None:
    found = error_from_wire(ErrorValue("Watched", "text", fields={"sku": 1}), ErrorRegistry([Watched]))
    assert isinstance(found, Watched)
    assert "text" in "".join(traceback.format_exception(found))
    assert Watched.ran == []


def test_fields_that_the_class_means_something_by_are_not_set() -> None:
    fields = {
        "summary": 1, "urgent": 2, "args": 3, "with_traceback": 4, "add_note": 5, "name": 6, "message": 7,
        "fields": 8, "cause": 9, "remote_traceback": 10, "_hidden": 11, "__class__": 12, "__proto__": 13,
        "__dict__": 14, "__cause__": 15, "__traceback__": 16, "no identifier": 17, "": 18, "fine": 19,
    }  # fmt: skip
    found: Any = error_from_wire(ErrorValue("OutOfStock", "text", fields=fields), ErrorRegistry([OutOfStock]))
    assert callable(found.summary)
    assert callable(found.with_traceback)
    assert callable(found.add_note)
    assert (found.args, found.message, found.name) == (("text",), "text", "OutOfStock")
    assert found.__cause__ is None
    assert not hasattr(found, "_hidden")
    assert not hasattr(found, "__proto__")
    assert found.fine == 19
    assert found.fields == fields
    assert {key for key in vars(found) if key not in RemoteError("", "").__dict__} == {"fine"}


def test_a_constant_of_the_class_is_no_field() -> None:
    value = ErrorValue("Declined", "", fields={"code": "E", "kind": "other", "limit": 4, "retry": True})
    found: Any = error_from_wire(value, ErrorRegistry([Declined]))
    assert (found.code, found.kind, found.limit, found.retry) == ("E", "payment", 3, True)


class Steering(StopIteration):
    pass


class AGroup(ExceptionGroup[Exception]):
    pass


class AWarning(UserWarning):
    pass


@pytest.mark.parametrize(
    "given",
    [
        "ValueError", 3, ValueError("an instance"), int, BaseException, KeyboardInterrupt, SystemExit,
        GeneratorExit, StopIteration, StopAsyncIteration, Steering, ExceptionGroup, BaseExceptionGroup,
        AGroup, Warning, AWarning,
    ],
    ids=shown,
)  # fmt: skip
def test_what_is_no_class_to_raise_is_refused(given: Any) -> None:
    with pytest.raises(TypeError):
        ErrorRegistry([given])


def test_names_are_given_once() -> None:
    again = type("OutOfStock", (Exception,), {})
    with pytest.raises(ValueError, match="two of the error classes are named 'OutOfStock'"):
        ErrorRegistry([OutOfStock, again])
    with pytest.raises(ValueError, match="two"):
        ErrorRegistry([OutOfStock, OutOfStock])
    with pytest.raises(ValueError, match="the name of a builtin"):
        ErrorRegistry([type("ConnectionError", (Exception,), {})])
    for name in ("LimitExceeded", "RPCValidationError", "CallCancelled", "ProtocolError"):
        with pytest.raises(ValueError, match="kkrpc_py's own"):
            ErrorRegistry([type(name, (Exception,), {})])
    ErrorRegistry([type("ConnectionError", (ConnectionError,), {}), OutOfStock])


def test_a_class_that_cannot_be_combined_is_refused_when_it_is_given() -> None:
    class Final(Exception):
        def __init_subclass__(cls) -> None:
            raise TypeError("not to be subclassed")

    ErrorRegistry([Final])  # it is not asked

    class Meta(type):
        def __new__(cls, name: str, bases: tuple[type, ...], space: dict[str, Any], /) -> Meta:
            if any(isinstance(base, Meta) for base in bases):
                raise RuntimeError("sealed")
            return super().__new__(cls, name, bases, space)

    class Sealed(Exception, metaclass=Meta):
        pass

    with pytest.raises(TypeError, match="Sealed cannot be raised for a remote error: sealed"):
        ErrorRegistry([Sealed])
    assert isinstance(error_from_wire(ErrorValue("Abstract", ""), ErrorRegistry([Abstract])), Abstract)


def test_registries_share_a_class_and_keep_none_alive() -> None:
    def names() -> list[str]:
        gc.collect()
        return [cls.__name__ for cls in RemoteError.__subclasses__()[-1:] for cls in cls.__subclasses__()]

    class Passing(Exception):
        pass

    first, second = ErrorRegistry([Passing]), ErrorRegistry([Passing])
    assert first.get("Passing") is second.get("Passing")
    del first, second, Passing
    assert "Passing" not in names()


# --- builtins -------------------------------------------------------------------------------


def test_an_oserror_keeps_its_number_and_file() -> None:
    error = raised(lambda: open("/nowhere/at/all"))  # noqa: SIM115 - it does not open
    found = remote(error)
    assert isinstance(found, FileNotFoundError)
    assert (found.errno, found.filename) == (2, "/nowhere/at/all")
    assert str(found) == str(error)
    assert copy.copy(found).errno == 2
    odd = error_from_wire(ErrorValue("OSError", "x", fields={"errno": "2", "filename": 7, "strerror": None}))
    assert isinstance(odd, OSError)
    assert (odd.errno, odd.filename, odd.strerror) == (None, None, None)


@pytest.mark.parametrize("name", [name for name in dir(builtins) if name[0].isupper()])
def test_a_name_chooses_no_class_that_steers_anything(name: str) -> None:
    found = error_from_wire(ErrorValue(name, "text"))
    assert isinstance(found, RemoteError)
    for never in (StopIteration, StopAsyncIteration, Warning, BaseExceptionGroup, GeneratorExit, SyntaxError):
        assert not isinstance(found, never)


# --- causes ---------------------------------------------------------------------------------


def chained(length: int) -> Exception:
    error: Exception = ValueError("0")
    for number in range(1, length):
        outer = RuntimeError(str(number))
        outer.__cause__ = error
        error = outer
    return error


def messages(exc: BaseException | None) -> list[str]:
    found = []
    while exc is not None:
        found.append(str(exc))
        exc = exc.__cause__
    return found


def test_a_chain_of_causes_crosses() -> None:
    try:
        try:
            try:
                raise OSError(28, "disk full")
            except OSError as exc:
                raise OutOfStock("bolt", 0) from exc
        except OutOfStock as exc:
            exc.add_note("of the middle")
            raise KeyError("order") from exc
    except KeyError as exc:
        found = remote(exc, OutOfStock)
    assert isinstance(found, KeyError)
    middle = found.__cause__
    assert isinstance(middle, OutOfStock)
    assert isinstance(middle, RemoteError)
    assert middle.sku == "bolt"
    assert middle.__notes__ == ["of the middle"]
    inner = middle.__cause__
    assert isinstance(inner, OSError)
    assert isinstance(inner, RemoteError)
    assert inner.errno == 28
    assert inner.__cause__ is None
    assert found.cause["cause"]["name"] == "OSError"
    assert error_to_wire(found) == error_to_wire(error_from_wire(error_to_wire(found)))
    for again in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):  # noqa: S301 - made here
        assert messages(again) == messages(found)
        assert isinstance(again.__cause__, OutOfStock)


def test_a_chain_is_cut_in_both_directions() -> None:
    value = error_to_wire(chained(50))
    depth, cause = 0, value.cause
    while cause is not None:
        depth, cause = depth + 1, cause.get("cause")
    assert depth == 8
    deep: Any = 1
    for _ in range(14):
        deep = [deep]
    error = chained(7)
    vars(error.__cause__.__cause__.__cause__.__cause__)["deep"] = deep  # type: ignore[union-attr]  # it fails if the chain is shorter
    assert error_to_wire(error).cause["cause"]["cause"]["cause"]["deep"] == deep
    hostile: Any = {"name": "E", "message": "innermost"}
    for number in range(100):
        hostile = {"name": "E", "message": str(number), "cause": hostile}
    found = error_from_wire(ErrorValue("E", "outermost", cause=hostile))
    assert len(messages(found)) == 9
    again = error_to_wire(found)
    assert json.dumps(again.cause)


def test_a_cycle_of_causes_ends() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    assert error_to_wire(first).cause == {"name": "KeyError", "message": "second"}
    loop = ValueError("loop")
    loop.__cause__ = loop
    assert error_to_wire(loop).cause is msgspec.UNSET
    cyclic: dict[str, Any] = {"name": "E", "message": "again"}
    cyclic["cause"] = cyclic
    assert len(messages(error_from_wire(ErrorValue("E", "top", cause=cyclic)))) == 9


def test_what_was_being_handled_is_in_the_traceback_alone() -> None:
    def fail(cause: Any) -> None:
        try:
            raise KeyError("a detail of the handler's")
        except KeyError:
            if cause is False:
                raise ValueError("bad")  # noqa: B904 - the implicit context is what is tested
            raise ValueError("bad") from cause

    implicit, none = raised(lambda: fail(False)), raised(lambda: fail(None))
    assert error_to_wire(implicit).cause is msgspec.UNSET
    assert "a detail" in (error_to_wire(implicit, with_traceback=True).stack or "")
    assert error_to_wire(none).cause is msgspec.UNSET
    assert "a detail" not in (error_to_wire(none, with_traceback=True).stack or "")


@pytest.mark.parametrize(
    "cause",
    [None, "disk full", 28, [], {}, {"reason": "x", "errno": 28}, {"name": "E"}, {"name": 1, "message": "m"}],
    ids=shown,
)
def test_a_cause_that_is_no_error_is_a_value(cause: Any) -> None:
    found = error_from_wire(ErrorValue("Error", "text", cause=cause))
    assert isinstance(found, RemoteError)
    assert found.cause == cause
    assert found.__cause__ is None
    assert error_to_wire(found).cause == (msgspec.UNSET if cause is None else cause)


def test_a_cause_that_a_codec_has_made_an_error_is_the_cause() -> None:
    inner = RemoteError(
        "OutOfStock", "root cause", cause=RemoteError("KeyError", "x"), fields={"sku": "bolt"}
    )
    found = error_from_wire(ErrorValue("Error", "failed", cause=inner), ErrorRegistry([OutOfStock]))
    assert isinstance(found.__cause__, OutOfStock)
    assert found.__cause__.sku == "bolt"
    assert messages(found) == ["Error: failed", "root cause", "x"]
    assert error_to_wire(found).cause == {
        "name": "OutOfStock",
        "message": "root cause",
        "cause": {"name": "KeyError", "message": "x"},
        "sku": "bolt",
    }
    assert error_from_wire(ErrorValue("Error", "failed", cause=ValueError("local"))).__cause__ is None


def test_fields_of_a_cause_that_some_codec_would_refuse_are_left_out() -> None:
    inner = ValueError("inner")
    odd: dict[str, Any] = {
        "fine": [1, 2.5, "ü", None, True, {"a": {}}], "data": b"bytes", "nan": float("nan"), "self": inner,
        "big": 2**60, "text": "\ud800", "keys": {1: 2}, "set": {1}, "infinite": [float("-inf")],
    }  # fmt: skip
    vars(inner).update(odd)
    outer = RuntimeError("outer")
    outer.__cause__ = inner
    assert error_to_wire(outer).cause == {"name": "ValueError", "message": "inner", "fine": odd["fine"]}
    outer.__cause__ = RemoteError("E", "m", cause={1, 2}, fields={"stack": "a secret"})
    assert error_to_wire(outer).cause == {"name": "E", "message": "m"}
    outer.__cause__ = RemoteError("E", "m", cause={"reason": [1]})
    assert error_to_wire(outer).cause == {"name": "E", "message": "m", "cause": {"reason": [1]}}


# --- notes, groups --------------------------------------------------------------------------


def test_notes_cross_and_are_added_to() -> None:
    error = ValueError("bad")
    error.add_note("first")
    error.add_note("second")
    found = remote(error)
    assert found.__notes__ == ["first", "second"]
    assert found.fields == {}
    found.add_note("third")
    again = remote(found)
    assert again.__notes__ == ["first", "second", "third"]
    assert copy.copy(again).__notes__ == again.__notes__
    assert "bad\nfirst\nsecond\nthird" in "".join(traceback.format_exception(again))


@pytest.mark.parametrize("notes", [None, "text", {"a": 1}, [1, None, ["x"]], 5])
def test_odd_notes_are_none(notes: Any) -> None:
    found = error_from_wire(ErrorValue("E", "m", fields={"__notes__": notes, "code": 1}))
    assert not hasattr(found, "__notes__")
    error = ValueError("bad")
    error.__notes__ = notes
    assert error_to_wire(error).fields == {}


def test_notes_are_bounded() -> None:
    found = error_from_wire(ErrorValue("E", "m", fields={"__notes__": ["x"] * 1000}))
    assert len(found.__notes__) == 32
    found.__notes__.extend(["y"] * 1000)
    assert len(error_to_wire(found).fields["__notes__"]) == 32


def test_a_group_is_its_name_and_what_is_in_it() -> None:
    deeper = ExceptionGroup("deeper", [OSError(28, "full")])
    member = OutOfStock("bolt", 1)
    member.__cause__ = ValueError("why")
    found = remote(ExceptionGroup("several", [member, deeper]))
    assert type(found) is RemoteError
    assert (found.name, found.message) == ("ExceptionGroup", "several (2 sub-exceptions)")
    assert found.fields == {
        "exceptions": [
            {
                "name": "OutOfStock",
                "message": "bolt: 1 left",
                "cause": {"name": "ValueError", "message": "why"},
                "sku": "bolt",
                "left": 1,
            },
            {
                "name": "ExceptionGroup",
                "message": "deeper (1 sub-exception)",
                "exceptions": [
                    {"name": "OSError", "message": "[Errno 28] full", "errno": 28, "strerror": "full"}
                ],
            },
        ]
    }


def test_groups_are_bounded() -> None:
    wide = error_to_wire(ExceptionGroup("wide", [ValueError(str(n)) for n in range(1000)]))
    assert len(wide.fields["exceptions"]) == 32
    many = error_to_wire(
        ExceptionGroup(
            "", [ExceptionGroup(str(n), [ValueError(str(n + i)) for i in range(30)]) for n in range(9)]
        )
    )
    assert sum(1 + len(group["exceptions"]) for group in many.fields["exceptions"]) == 32
    group: Exception = ValueError("innermost")
    for number in range(100):
        group = ExceptionGroup(str(number), [group, ValueError("beside")])
    assert len(json.dumps(error_to_wire(group).fields)) < 5000


# --- tracebacks -----------------------------------------------------------------------------


def at_the_peer() -> NoReturn:
    raise ValueError("far away")


def in_between(exc: Exception) -> NoReturn:
    raise exc


def test_the_remote_traceback_is_shown_with_the_error() -> None:
    found = remote(raised(at_the_peer), tracebacks=True)
    assert "in at_the_peer" in (found.remote_traceback or "")
    shown = "".join(traceback.format_exception(raised(lambda: in_between(found))))
    assert "in in_between" in shown
    assert shown.count("in at_the_peer") == 1
    assert shown.count("Raised by the peer:") == 1
    assert remote(raised(at_the_peer)).remote_traceback is None


def test_a_second_hop_shows_each_traceback_once() -> None:
    error = raised(at_the_peer)
    error.__cause__ = KeyError("the deepest reason")
    first = remote(error, tracebacks=True)
    second = remote(raised(lambda: in_between(first)), tracebacks=True)
    stack = second.remote_traceback or ""
    assert stack.index("in at_the_peer") < stack.index("in in_between")
    assert stack.count("the deepest reason") == 1
    shown = "".join(traceback.format_exception(raised(lambda: in_between(second))))
    assert shown.count("in at_the_peer") == 1
    assert shown.count("in in_between") == 2
    assert shown.count("Raised by the peer:") == 1
    assert second.fields == {}  # the shown traceback is no note
    # One that may send none sends none of the others' either.
    silent = remote(second)
    assert silent.remote_traceback is None
    assert not hasattr(silent, "__notes__")


def test_a_copy_shows_the_remote_traceback_too() -> None:
    found = remote(raised(at_the_peer), tracebacks=True)
    for again in (copy.copy(found), pickle.loads(pickle.dumps(found))):  # noqa: S301 - made here
        assert again.remote_traceback == found.remote_traceback
        assert "in at_the_peer" in "".join(traceback.format_exception(again))
        assert error_to_wire(again).fields == {}


def test_the_traceback_of_a_validation_error_is_shown_too() -> None:
    def check() -> NoReturn:
        raise ValidationFailed("m", "input", [ValidationIssue((0,), "bad")]) from KeyError("why")

    found = crossed(raised(check), tracebacks=True)
    assert isinstance(found, ValidationFailed)
    assert "in check" in "".join(traceback.format_exception(found))
    assert isinstance(found.__cause__, KeyError)


# --- exceptions with code of their own ------------------------------------------------------


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Looks(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class Text(str):
    __slots__ = ()


class Unnoted(Exception):
    @property
    def __notes__(self) -> list[str]:
        raise RuntimeError("no notes")


class Unset(Exception):
    __slots__ = ("sku",)


class Curious(Exception):
    def __str__(self) -> str:
        return Text("text")


def test_an_error_whose_own_code_fails_is_reported_all_the_same() -> None:
    mute = Mute()
    mute.code = 5  # type: ignore[attr-defined]  # a field of its own
    mute.__cause__ = ValueError("why")
    assert error_to_wire(mute) == ErrorValue(
        "Mute",
        "the error's own text cannot be had",
        cause={"name": "ValueError", "message": "why"},
        fields={"code": 5},
    )
    assert error_to_wire(Looks("x")).name == "Looks"
    outer = RuntimeError("outer")
    outer.__cause__ = Looks("x")
    assert error_to_wire(outer).cause["name"] == "Looks"
    assert type(error_to_wire(Curious()).message) is str
    assert error_to_wire(Unset()).fields == {}
    assert error_to_wire(Unnoted("text"), with_traceback=True) == ErrorValue("Unnoted", "text")
    half = Unset()
    half.code = 1  # type: ignore[attr-defined]  # a field of its own
    assert error_to_wire(half).fields == {"code": 1}


def test_a_childs_stderr_is_not_for_the_peer() -> None:
    lost = ChannelClosed("the child process ended", exit_code=3, stderr_tail="a secret")
    outer = RuntimeError("outer")
    outer.__cause__ = lost
    assert error_to_wire(lost).message == "the child process ended (exit code 3)"
    assert error_to_wire(outer).cause["message"] == "the child process ended (exit code 3)"


def test_the_librarys_own_errors_say_all_in_their_text() -> None:
    value = error_to_wire(CallTimeout("m", 1.5))
    assert (value.name, value.message, value.fields) == (
        "CallTimeout",
        "call of 'm' was not answered within 1.5 s",
        {},
    )


# --- anything at all ------------------------------------------------------------------------

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(
    [
        "Error",
        "ValueError",
        "OSError",
        "KeyError",
        "RPCValidationError",
        "OutOfStock",
        "Touchy",
        "Slotted",
        "",
    ]
)
KEYS = st.text(max_size=8) | st.sampled_from(
    "__notes__ issues method phase sku code args errno exceptions __proto__ with_traceback _x".split()
)


@given(
    st.builds(
        ErrorValue,
        NAMES,
        st.text(max_size=8),
        st.none() | st.text(max_size=8),
        st.just(msgspec.UNSET)
        | JSON
        | st.fixed_dictionaries({"name": NAMES, "message": st.text(max_size=8), "cause": JSON}),
        st.dictionaries(KEYS, JSON, max_size=5),
        st.booleans(),
    )
)
def test_whatever_comes_becomes_an_error_that_can_be_shown_and_sent_on(value: ErrorValue) -> None:
    found = error_from_wire(value, ErrorRegistry([OutOfStock, Touchy, Slotted]))
    assert isinstance(found, KkrpcError)
    assert isinstance(str(found) + repr(found), str)
    assert traceback.format_exception(found)
    pickle.loads(pickle.dumps(found))  # noqa: S301 - made here
    sent = error_to_wire(found, with_traceback=True)
    assert sent.message == value.message or isinstance(found, ValidationFailed)
    assert Touchy.ran == []


@pytest.mark.parametrize(
    ("args", "kwargs", "wrong"),
    [
        ((5,), {}, TypeError),
        (("",), {}, ValueError),
        (("X", b"text"), {}, TypeError),
        (("X", "", 200), {}, ValueError),
        (("X", "", 600), {}, ValueError),
        (("X", "", True), {}, ValueError),
        (("X",), {"field_errors": {"name": "is taken"}}, TypeError),
        (("X",), {"field_errors": {1: ["is taken"]}}, TypeError),
        (("X",), {"field_errors": {"name": [2]}}, TypeError),
    ],
)
def test_an_action_error_that_cannot_cross_is_none(
    args: tuple[Any, ...], kwargs: dict[str, Any], wrong: type[Exception]
) -> None:
    with pytest.raises(wrong):
        ActionError(*args, **kwargs)
