"""Host and Origin: who may come (HTTP-1, HTTP-2), and who decides (HTTP-4)."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from typing import Any

import pytest

from kkrpc_py.errors import ActionError
from kkrpc_py.transports.handshake import (
    LOCAL_HOSTS,
    HandshakeRequest,
    check_hook,
    check_names,
    headers_of,
    host_allowed,
    judge,
    note_refused,
    origin_allowed,
    same_origin,
)

LOCAL = [
    "localhost",
    "LOCALHOST",
    "localhost:80",
    "localhost:",
    "127.0.0.1",
    "127.0.0.1:8000",
    "[::1]",
    "[::1]:1",
]
FOREIGN = [
    "", "example.org", "localhost.example.org", "xlocalhost", "localhost.", "127.0.0.1.nip.io", "127.0.0.2",
    "localhost@example.org", "example.org@localhost", "localhost, example.org", "localhost example.org",
    "localhost/", "localhost#", "localhost?", "localhost\\", "[::1", "::1", "[::1]x", "[localhost]",
    "localhost:x", "localhost:80:80", "localhost:123456", "http://localhost", " localhost", "localhost\n",
]  # fmt: skip


@pytest.mark.parametrize("host", LOCAL)
def test_hosts_of_this_machine(host: str) -> None:
    assert host_allowed({"host": host}, LOCAL_HOSTS)


@pytest.mark.parametrize("host", FOREIGN)
def test_hosts_that_are_not(host: str) -> None:
    assert not host_allowed({"host": host}, LOCAL_HOSTS)
    assert host_allowed({"host": host}, ["*"])


def test_a_request_without_a_host() -> None:
    assert not host_allowed({}, LOCAL_HOSTS)
    assert host_allowed({}, ("*",))
    assert not host_allowed({"host": "localhost"}, ())


@pytest.mark.parametrize(
    ("allowed", "asked"),
    [
        (["example.org"], "EXAMPLE.org:8443"),
        (["example.org:80"], "example.org"),
        (["::1"], "[::1]:80"),
        (["[::1]"], "[::1]"),
        (["[FE80::1]"], "[fe80::1]"),
    ],
)
def test_hosts_that_were_named(allowed: list[str], asked: str) -> None:
    check_names("hosts", allowed)
    assert host_allowed({"host": asked}, allowed)


SAME = [
    ("localhost", "http://localhost", False),
    ("localhost:80", "http://localhost", False),
    ("localhost", "http://localhost:80", False),
    ("LocalHost:8000", "HTTP://localhost:8000", False),
    ("localhost", "https://localhost", True),
    ("localhost:443", "https://localhost", True),
    ("[::1]:8000", "http://[::1]:8000", False),
]
OTHER = [
    ("localhost", "https://localhost", False),
    ("localhost", "http://localhost", True),
    ("localhost:8000", "http://localhost", False),
    ("localhost", "http://localhost:8000", False),
    ("localhost:443", "http://localhost:443", True),
    ("localhost", "http://127.0.0.1", False),
    ("localhost", "http://localhost.evil.example", False),
    ("localhost", "http://evil.example", False),
    ("localhost", "http://localhost@evil.example", False),
    ("localhost", "http://localhost/", False),
    ("localhost", "localhost", False),
    ("localhost", "//localhost", False),
    ("localhost", "null", False),
    ("localhost", "", False),
    ("localhost", "http://localhost, http://evil.example", False),
    ("localhost", "file://", False),
    ("", "http://", False),
    ("", "", False),
]


@pytest.mark.parametrize(("host", "origin", "secure"), SAME)
def test_the_same_origin(host: str, origin: str, secure: bool) -> None:
    headers = {"host": host, "origin": origin}
    assert same_origin(headers, secure=secure)
    assert origin_allowed(headers, (), secure=secure)


@pytest.mark.parametrize(("host", "origin", "secure"), OTHER)
def test_another_origin(host: str, origin: str, secure: bool) -> None:
    headers = {"host": host, "origin": origin}
    assert not same_origin(headers, secure=secure)
    assert not origin_allowed(headers, (), secure=secure)
    assert not origin_allowed(headers, ["https://app.example"], secure=secure)
    assert origin_allowed(headers, ["*"], secure=secure)


def test_no_page_has_no_origin() -> None:
    for origins, secure in itertools.product([(), ("https://app.example",)], [False, True]):
        assert origin_allowed({"host": "localhost"}, origins, secure=secure)
        assert not same_origin({"host": "localhost"}, secure=secure)


@pytest.mark.parametrize(
    ("allowed", "asked"),
    [
        ("https://app.example", "https://app.example"),
        ("https://app.example:443", "https://APP.example"),
        ("https://app.example", "https://app.example:443"),
        ("http://app.example:8000", "http://app.example:8000"),
        ("app://bundle", "app://bundle"),
        ("chrome-extension://abc", "chrome-extension://abc"),
        ("null", "null"),
    ],
)
def test_an_origin_that_was_named(allowed: str, asked: str) -> None:
    check_names("origins", [allowed])
    assert origin_allowed({"host": "localhost", "origin": asked}, [allowed], secure=True)
    assert not origin_allowed({"host": "localhost", "origin": asked + "x"}, [allowed], secure=True)


@pytest.mark.parametrize(
    ("what", "names", "error"),
    [
        ("hosts", "localhost", TypeError),
        ("origins", "https://app.example", TypeError),
        ("hosts", ["http://localhost"], ValueError),
        ("hosts", [""], ValueError),
        ("hosts", ["*.example.org/"], ValueError),
        ("hosts", ["null "], ValueError),
        ("origins", ["app.example"], ValueError),
        ("origins", ["https://app.example/"], ValueError),
        ("origins", [""], ValueError),
    ],
)
def test_what_names_nothing(what: str, names: Collection[str], error: type[Exception]) -> None:
    with pytest.raises(error, match=what):
        check_names(what, names)


def test_header_fields() -> None:
    fields = [(b"Host", b"localhost"), (b"X-A", b"1"), (b"x-a", b"2"), (b"X-\xe4", b"\xe4")]
    assert headers_of(fields) == {"host": "localhost", "x-a": "1, 2", "x-\xe4": "\xe4"}
    # RFC 9113, 8.2.3
    assert headers_of([(b"cookie", b"a=1"), (b"cookie", b"b=2")]) == {"cookie": "a=1; b=2"}


def test_a_hook_that_is_none() -> None:
    check_hook(None)
    with pytest.raises(TypeError, match="authenticate is an async function"):
        check_hook(5)  # type: ignore[arg-type]  # on purpose


def asked(**headers: str) -> HandshakeRequest:
    return HandshakeRequest(headers={"host": "localhost", **headers}, path="/")


@pytest.mark.anyio
async def test_the_hook_is_asked_last(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[HandshakeRequest] = []
    outcome: Any = True

    async def authenticate(request: HandshakeRequest) -> bool:
        calls.append(request)
        if isinstance(outcome, Exception):
            raise outcome
        return bool(outcome)

    async def judged(request: HandshakeRequest) -> ActionError | None:
        return await judge(request, hosts=LOCAL_HOSTS, origins=(), authenticate=authenticate, secure=False)

    for request, code in (
        (asked(host="evil.example"), "FORBIDDEN_HOST"),
        (asked(host="evil.example", origin="http://evil.example"), "FORBIDDEN_HOST"),
        (asked(origin="http://evil.example"), "FORBIDDEN_ORIGIN"),
    ):
        refusal = await judged(request)
        assert refusal is not None
        assert refusal.code == code
    assert calls == []
    request = asked()
    assert await judged(request) is None
    assert calls == [request]
    answers = (
        (False, "FORBIDDEN", 403),
        (None, "FORBIDDEN", 403),
        (ActionError("MINE", "m", 418), "MINE", 418),
        (ValueError("secret"), "INTERNAL_ERROR", 500),
    )
    for answer, code, status in answers:
        outcome = answer
        refusal = await judged(asked())
        assert refusal is not None
        assert (refusal.code, refusal.status) == (code, status)
        assert "secret" not in str(refusal)
    assert "secret" in caplog.text


def test_who_is_refused_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        note_refused("hosts", "a-name-of-this-test.example\n" + "x" * 1000)
        note_refused("origins", None)
    told = [record.getMessage() for record in caplog.records]
    assert len([each for each in told if "a-name-of-this-test" in each]) == 1
    assert all(len(each) < 200 and "\n" not in each for each in told)
    for number in range(1000):
        note_refused("hosts", f"host-{number}")
    assert len(caplog.records) < 100
