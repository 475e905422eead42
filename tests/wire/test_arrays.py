"""Arrays of numbers through CBOR, with numpy and without, and what a peer may not send for one."""

from __future__ import annotations

import sys
from array import array
from typing import Any

import cbor2
import numpy as np
import pytest

from kkrpc_py.limits import Limits
from kkrpc_py.wire.arrays import Tensor
from kkrpc_py.wire.cbor_codec import CborReader, CborWriter
from kkrpc_py.wire.cbor_errors import CborRefused

LIMITS = Limits()


def written(value: Any) -> bytes:
    writer = CborWriter(LIMITS)
    return writer.dumps({"v": writer.fit(value, "v")})


def read(payload: bytes) -> Any:
    return CborReader(LIMITS).loads(payload)["v"]


def tensor(value: Any) -> Tensor:
    found = Tensor.of(np, value)
    assert found is not None
    return found


@pytest.mark.parametrize("code", "bBhHiIlLqQfd")
def test_an_array_of_the_standard_library_arrives_as_one(code: str) -> None:
    sent = array(code, [0, 1, 100])
    got = read(written([sent]))[0]
    assert type(got) is array
    assert got.tolist() == sent.tolist()
    assert got.itemsize == sent.itemsize


def test_the_bytes_are_those_of_rfc_8746() -> None:
    assert cbor2.loads(written(array("H", [1, 258])), tag_hook=lambda tag, _: (tag.tag, tag.value)) == {
        "v": (69, b"\x01\x00\x02\x01")
    }


@pytest.mark.parametrize("dtype", ["u1", "<u2", "<u4", "<u8", "i1", "<i2", "<i4", "<i8", "<f4", "<f8"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 0, 3), (1, 2, 3, 4)])
def test_a_numpy_array_keeps_its_type_and_shape(dtype: str, shape: tuple[int, ...]) -> None:
    sent = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)
    got = read(written(tensor(sent)))
    assert isinstance(got, np.ndarray)
    assert (got.dtype, got.shape) == (sent.dtype, sent.shape)
    assert (got == sent).all()


def test_what_is_not_in_order_in_memory_is_put_in_order() -> None:
    for sent in (np.arange(12).reshape(3, 4).T, np.arange(10)[::2], np.arange(4, dtype=">i4")):
        got = read(written(tensor(sent)))
        assert got.tolist() == sent.tolist()


@pytest.mark.parametrize(
    "value", [np.zeros(2, bool), np.zeros(2, "f2"), np.zeros(2, complex), np.array(["a"])]
)
def test_elements_without_a_tag_have_no_tensor(value: Any) -> None:
    assert Tensor.of(np, value) is None


def test_without_numpy_it_is_a_memoryview_of_that_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = written([tensor(np.arange(6, dtype="<i2").reshape(2, 3)), tensor(np.zeros((0, 3)))])
    monkeypatch.delitem(sys.modules, "numpy")
    view, empty = read(payload)
    assert type(view) is memoryview
    assert (view.shape, view.format, view.tolist()) == ((2, 3), "h", [[0, 1, 2], [3, 4, 5]])
    assert len(empty) == 0


def test_a_reader_made_before_numpy_reads_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    payload = written(tensor(np.arange(6).reshape(2, 3)))
    numpy = sys.modules.pop("numpy")
    try:
        reader = CborReader(LIMITS)
    finally:
        sys.modules["numpy"] = numpy
    assert reader.loads(payload)["v"].tolist() == [[0, 1, 2], [3, 4, 5]]


HOSTILE = {
    "half an element": cbor2.CBORTag(69, b"\x01"),
    "no bytes": cbor2.CBORTag(69, [1, 2]),
    "big-endian": cbor2.CBORTag(65, b"\x00\x01"),
    "too few elements": cbor2.CBORTag(40, [[2, 2], cbor2.CBORTag(64, b"abc")]),
    "a negative size": cbor2.CBORTag(40, [[-1, -3], cbor2.CBORTag(64, b"abc")]),
    "a size that is true": cbor2.CBORTag(40, [[True, 3], cbor2.CBORTag(64, b"abc")]),
    "too many dimensions": cbor2.CBORTag(40, [[1] * 33, cbor2.CBORTag(64, b"a")]),
    "no typed array within": cbor2.CBORTag(40, [[1], [1]]),
    "no list": cbor2.CBORTag(40, cbor2.CBORTag(64, b"a")),
    "one part": cbor2.CBORTag(40, [[1]]),
    "as a key": {cbor2.CBORTag(64, b"a"): 1},
    "huge sizes": cbor2.CBORTag(40, [[2**63, 2**63, 0], cbor2.CBORTag(64, b"")]),
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_no_array_is_refused(value: Any) -> None:
    with pytest.raises(CborRefused):
        CborReader(LIMITS).loads(cbor2.dumps({"v": value}))
