"""Annotations with pydantic models; the rest of validation does without (test_validation.py)."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import AsyncIterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Literal

import pytest

import kkrpc_py as kk
from kkrpc_py.channel.validation import Validator, converter
from kkrpc_py.errors import ValidationFailed
from tests.channel.harness import linked

pydantic = pytest.importorskip("pydantic")
from pydantic import BaseModel, Field, field_validator  # noqa: E402 - there may be none

pytestmark = pytest.mark.anyio


class User(BaseModel):
    name: str = Field(min_length=2)
    age: int = Field(ge=0)
    friends: list[User] = []

    @field_validator("name")
    @classmethod
    def not_root(cls, name: str) -> str:
        if name == "root":
            raise ValueError("not this one")
        return name


@dataclasses.dataclass
class Team:
    name: str
    members: list[User]


class API:
    async def greet(self, user: User, greeting: str = "hello") -> str:
        assert type(user) is User
        return f"{greeting}, {user.name}"

    async def oldest(self, team: Team | None, users: dict[str, User]) -> int:
        members = [*(team.members if team else []), *users.values()]
        assert all(type(member) is User for member in members)
        return max(member.age for member in members)

    async def names(self, users: list[User]) -> AsyncIterator[User]:
        for user in users:
            yield user


def issues_of(function: Any, *args: Any) -> list[tuple[tuple[str | int, ...], str]]:
    with pytest.raises(ValidationFailed) as caught:
        function(*args)
    assert "hunter2" not in str(caught.value.issues)
    return [(issue.path, issue.message) for issue in caught.value.issues]


def test_a_model_says_all_its_issues_and_no_value() -> None:
    check = Validator.of(API().greet, "greet")
    assert check is not None
    (user, greeting), _ = check.arguments([{"name": "Ada", "age": "36"}, "hi"], {})
    assert (user, greeting) == (User(name="Ada", age=36), "hi")
    assert check.arguments([user], {})[0][0] is user
    bad = {"name": "x", "age": -1, "friends": [{"age": "hunter2"}, {"name": "root", "age": 1}]}
    found = issues_of(check.arguments, [bad, 5], {})
    assert [path for path, _ in found] == [
        (0, "name"),
        (0, "age"),
        (0, "friends", 0, "name"),
        (0, "friends", 0, "age"),
        (0, "friends", 1, "name"),
        (1,),
    ]
    assert "not this one" in found[4][1]
    assert [path for path, _ in issues_of(check.arguments, [{"name": "Ada", "age": 1}], {"greeting": 5})] == [
        ("greeting",)
    ]


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Owner(BaseModel):
    pet: Cat | Dog = Field(discriminator="kind")


def test_a_tag_is_a_value_too() -> None:
    convert = converter(Owner)
    assert convert is not None
    found = issues_of(convert, {"pet": {"kind": "hunter2"}})
    assert found == [(("pet",), "Input tag does not match any of the expected tags")]


class Nets(BaseModel):
    numbers: list[int] = []
    pairs: dict[str, set[str]] = {}
    allowed: list[IPv4Network | IPv6Network] = []
    anything: Any = None
    nested: list[Nets] = []


@pytest.mark.parametrize("net", [ip_network("::/0"), ip_network("0.0.0.0/0")], ids=str)
def test_a_network_is_no_list_of_its_addresses(net: Any) -> None:
    """CBOR carries one in a few bytes, and pydantic would go through all of it."""
    convert = converter(Nets)
    assert convert is not None
    assert issues_of(convert, {"numbers": net}) == [(("numbers",), "Input should be a valid list")]
    found = issues_of(convert, {"nested": [{"pairs": {"a": net}}, {"numbers": net}]})
    assert [path for path, _ in found] == [("nested", 0, "pairs", "a"), ("nested", 1, "numbers")]
    made = convert({"allowed": [net], "anything": {net: (net, {net})}, "nested": [{"anything": net}]})
    assert made == Nets(allowed=[net], anything={net: (net, {net})}, nested=[Nets(anything=net)])
    around: dict[str, Any] = {"numbers": [1]}
    around["anything"] = [around]
    assert convert(around).numbers == [1]


def test_models_within_other_types_are_found() -> None:
    check = Validator.of(API().oldest, "oldest")
    assert check is not None
    user = {"name": "Ada", "age": 36}
    (team, users), _ = check.arguments([{"name": "a", "members": [user]}, {"b": user}], {})
    assert team == Team("a", [User(name="Ada", age=36)])
    assert users == {"b": User(name="Ada", age=36)}
    assert check.arguments([None, {}], {}) == ([None, {}], {})
    found = issues_of(check.arguments, [{"name": "a", "members": [{"name": "Ada"}]}, {"b": {}}], {})
    assert [path for path, _ in found] == [(0, "members", 0, "age"), (1, "b", "name"), (1, "b", "age")]


def test_the_list_of_issues_is_bounded_here_too() -> None:
    check = Validator.of(API().names, "names")
    assert check is not None
    found = issues_of(check.arguments, [[{"name": "Ada", "age": "x"}] * 1000], {})
    assert len(found) == 101
    assert found[-1] == ((), "and 900 more")


def test_a_converter_makes_models() -> None:
    convert = converter(list[User])
    assert convert is not None
    assert convert([{"name": "Ada", "age": 1}]) == [User(name="Ada", age=1)]
    assert [path for path, _ in issues_of(convert, [{"name": "Ada"}])] == [(0, "age")]


async def test_models_through_a_channel() -> None:
    async with linked(API()) as (_, client):
        api = client.remote()
        assert await api.greet({"name": "Ada", "age": 36}, greeting="hi") == "hi, Ada"
        with pytest.raises(kk.ValidationFailed) as caught:
            await api.greet({"name": "Ada", "age": "hunter2"})
        assert [issue.path for issue in caught.value.issues] == [(0, "age")]
        assert "hunter2" not in str(caught.value)


def test_pydantic_is_imported_by_nobody_who_has_no_model() -> None:
    program = """
import sys
import kkrpc_py as kk
from kkrpc_py.channel.validation import Validator
class Fake:
    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler): ...
def handler(a: int, b: list[str], c: Fake) -> dict[str, int]: ...
check = Validator.of(handler, "handler")
check.arguments([1, ["x"], Fake()], {})
print("pydantic" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "False\n"
