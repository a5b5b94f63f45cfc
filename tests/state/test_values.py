"""Every value that tracked state may hold comes out of an image as it went in, bit for bit."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import pathlib
import struct
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from florlog_wal import Unencodable
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

import florlog
from florlog.state import codecs as _types
from florlog.state.adapters import adapter
from florlog.state.inplace import bits
from florlog.state.tensors import compressed_parts, put_together

from .memory import clone_bits, round_trip

DTYPES = [
    dtype
    for name, dtype in sorted(vars(torch).items())
    if isinstance(dtype, torch.dtype) and not name.startswith("q") and not name.startswith("bits")
]
NUMERIC = [
    d for d in DTYPES if (d not in (torch.complex32,) and "int1" not in str(d)[6:]) or d is torch.int16
]


class Colour(enum.Enum):
    RED = 1
    GREEN = "g"


class Mode(enum.Flag):
    A = 1
    B = 2


class Point(NamedTuple):
    x: float
    y: torch.Tensor


@dataclasses.dataclass
class Best:
    score: float
    weights: list[torch.Tensor]
    colour: Colour = Colour.RED


@dataclasses.dataclass(frozen=True, slots=True)
class Fixed:
    name: str
    when: dt.date


class Money:
    def __init__(self, cents: int) -> None:
        self.cents = cents


def supported(dtype: torch.dtype) -> bool:
    try:
        torch.zeros(2, dtype=torch.uint8).view(torch.uint8)
        torch.empty(1, dtype=dtype).copy_(torch.empty(1, dtype=dtype)).view(torch.uint8)
    except (RuntimeError, NotImplementedError):
        return False
    return True


@pytest.mark.parametrize("dtype", [d for d in DTYPES if supported(d)], ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (7,), (2, 3, 5)], ids=str)
def test_a_tensor_of_any_dtype_and_shape_is_exact(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    raw = torch.randint(0, 256, (*shape, torch.empty(0, dtype=dtype).element_size()), dtype=torch.uint8)
    if dtype is torch.bool:
        raw %= 2
    tensor = raw.reshape(-1).view(dtype).reshape(shape)
    back = round_trip(tensor)
    assert back.dtype == dtype
    assert back.shape == tensor.shape
    assert clone_bits(back) == clone_bits(tensor)


def test_many_dtypes_are_supported_here() -> None:
    names = {str(d) for d in DTYPES if supported(d)}
    assert {"torch.bfloat16", "torch.float8_e4m3fn", "torch.bool", "torch.complex64", "torch.uint16"} <= names


@pytest.mark.parametrize(
    "make",
    [
        lambda t: t.t(),
        lambda t: t[:, ::2],
        lambda t: t.permute(1, 0),
        lambda t: t.reshape(2, 2, 3, 2).to(memory_format=torch.channels_last),
        lambda t: t[0].expand(5, 6),
        lambda t: t[:, :1].expand(4, 6),
        lambda t: t.flip(0),
        lambda t: torch.view_as_complex(t.reshape(4, 3, 2)).conj(),
        lambda t: torch._neg_view(t),
    ],
    ids=[
        "transposed",
        "strided",
        "permuted",
        "channels_last",
        "expanded",
        "expanded-last",
        "flipped",
        "conj",
        "neg",
    ],
)
def test_a_tensor_of_any_layout_keeps_values_and_the_order_of_its_memory(make: Any) -> None:
    tensor = make(torch.randn(4, 6))
    back = round_trip(tensor)
    assert torch.equal(back, tensor)
    order = torch.empty_like(tensor).stride() if 0 not in tensor.stride() else tensor.stride()
    assert [s == 0 for s in back.stride()] == [s == 0 for s in tensor.stride()]
    if 0 not in order:
        assert back.stride() == order


def test_a_sum_over_a_transposed_tensor_is_equal_bit_for_bit_afterwards() -> None:
    tensor = torch.randn(1000, 1000).t()
    assert round_trip(tensor).sum().item() == tensor.sum().item()


def test_a_tensor_that_occurs_twice_comes_back_as_one() -> None:
    shared = torch.randn(3)
    back = round_trip({"a": shared, "b": [shared], "c": shared.clone()})
    assert back["a"] is back["b"][0]
    assert back["a"] is not back["c"]


def test_overlapping_views_keep_their_values() -> None:
    base = torch.arange(10.0)
    back = round_trip([base, base[2:5], base[::2], base[:5]])
    assert [t.tolist() for t in back] == [base.tolist(), [2, 3, 4], [0, 2, 4, 6, 8], [0, 1, 2, 3, 4]]


def test_a_sparse_tensor_is_exact() -> None:
    sparse = torch.sparse_coo_tensor([[0, 2, 0], [1, 0, 1]], [1.0, 2.0, 3.0], (3, 2))
    for tensor in (sparse, sparse.coalesce()):
        back = round_trip(tensor)
        assert back.is_coalesced() == tensor.is_coalesced()
        assert torch.equal(back._indices(), tensor._indices())
        assert torch.equal(back._values(), tensor._values())
        assert back.shape == tensor.shape


@pytest.mark.parametrize("layout", ["csr", "csc", "bsr", "bsc"])
def test_a_compressed_sparse_tensor_is_exact(layout: str) -> None:
    block = ((2, 2),) if layout.startswith("b") else ()
    for matrix in (torch.eye(4), torch.zeros(2, 4), torch.randn(3, 4, 2)):
        tensor = getattr(matrix, f"to_sparse_{layout}")(*block)
        back = round_trip(tensor)
        assert (back.layout, back.shape, back.dtype) == (tensor.layout, tensor.shape, tensor.dtype)
        parts = compressed_parts(back), compressed_parts(tensor)
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(*map(list, parts), strict=True))


def test_a_layout_that_torch_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="no layout"):
        put_together([torch.zeros(1)] * 3, (1, 1), "load")


@pytest.mark.parametrize("dtype", [torch.qint8, torch.quint8, torch.qint32], ids=str)
@pytest.mark.parametrize("channels", [False, True])
def test_a_quantized_tensor_is_exact(dtype: torch.dtype, channels: bool) -> None:
    values = torch.randn(3, 4)
    if channels:
        scales, zeros = torch.rand(4) + 0.1, torch.arange(4)
        tensor = torch.quantize_per_channel(values, scales, zeros, 1, dtype)
    else:
        tensor = torch.quantize_per_tensor(values, 0.07, 3, dtype)
    back = round_trip(tensor)
    assert (back.dtype, back.qscheme()) == (tensor.dtype, tensor.qscheme())
    assert torch.equal(back.int_repr(), tensor.int_repr())
    assert torch.equal(back.dequantize(), tensor.dequantize())
    tracked = torch.quantize_per_tensor(torch.randn(3, 4), 0.5, 0, dtype)
    if not channels:
        adapter("it", tracked).restore(round_trip(adapter("it", tensor).capture()))
        assert torch.equal(tracked.dequantize(), tensor.dequantize())


def test_a_lazy_conjugate_is_compared_by_its_values() -> None:
    tensor = torch.randn(4, dtype=torch.complex64)
    assert bits(tensor.conj()) == bits(tensor.conj().resolve_conj()) != bits(tensor)
    assert torch.equal(round_trip(tensor.conj()), tensor.conj())


def test_a_trained_tensor_comes_back_with_its_gradient() -> None:
    tensor = torch.randn(3, requires_grad=True)
    (tensor * 2).sum().backward()
    back = round_trip([tensor])[0]
    assert back.requires_grad
    assert torch.equal(back.grad, tensor.grad)


ARRAYS = stn.arrays(
    dtype=st.one_of(
        stn.boolean_dtypes(),
        stn.integer_dtypes(endianness="?"),
        stn.unsigned_integer_dtypes(endianness="?"),
        stn.floating_dtypes(endianness="?", sizes=(16, 32, 64, 128)),
        stn.complex_number_dtypes(endianness="?"),
        stn.datetime64_dtypes(),
        stn.timedelta64_dtypes(),
        stn.unicode_string_dtypes(max_len=5),
        stn.byte_string_dtypes(max_len=5),
    ),
    shape=stn.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


@settings(max_examples=200, deadline=None)
@given(ARRAYS, st.booleans(), st.booleans())
def test_an_array_of_any_dtype_is_exact(array: np.ndarray, turned: bool, skipping: bool) -> None:
    array = array.T if turned else array
    array = array[::-2] if skipping and array.ndim else array
    back = round_trip(array)
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    scalar = array.reshape(-1)[0] if array.size else None
    if scalar is not None:
        again = round_trip(scalar)
        assert type(again) is type(scalar)
        assert np.asarray(again).tobytes() == np.asarray(scalar).tobytes()


def test_an_array_keeps_the_order_of_its_memory() -> None:
    array = np.asfortranarray(np.random.default_rng(0).normal(size=(300, 200)))
    assert round_trip(array).flags.f_contiguous
    assert round_trip(array).sum() == array.sum()


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.text(),
    st.binary(max_size=20),
    st.dates(),
    st.datetimes(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(allow_nan=False),
    st.fractions(),
    st.sampled_from(Colour),
    st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 3)),
    st.builds(Fixed, st.text(), st.dates()),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.builds(deque, st.lists(inner, max_size=4), st.sampled_from([None, 3, 9])),
        st.dictionaries(SCALARS, inner, max_size=4),
        st.dictionaries(st.text(), inner, max_size=4).map(OrderedDict),
        st.dictionaries(st.text(), inner, max_size=4).map(lambda held: defaultdict(list, held)),
        st.frozensets(SCALARS, max_size=4),
        st.sets(SCALARS, max_size=4),
        st.builds(Best, st.floats(allow_nan=False), st.lists(inner, max_size=2)),
    ),
    max_leaves=12,
)


def kinds(value: Any) -> Any:
    """The types of a value and of what it holds."""
    if isinstance(value, dict):
        return type(value), [(kinds(key), kinds(item)) for key, item in value.items()]
    if isinstance(value, (list, tuple, deque)):
        return type(value), [kinds(item) for item in value]
    return type(value)


@settings(max_examples=250, deadline=None)
@given(TREES)
def test_python_values_are_exact_in_type_and_contents(value: Any) -> None:
    back = round_trip(value)
    assert back == value
    assert kinds(back) == kinds(value)
    if isinstance(value, deque):
        assert back.maxlen == value.maxlen


@given(st.integers(0, 2**64 - 1))
def test_a_float_keeps_each_bit_nan_payloads_included(pattern: int) -> None:
    (value,) = struct.unpack("<d", struct.pack("<Q", pattern))
    assert struct.pack("<d", round_trip(value)) == struct.pack("<d", value)


@pytest.mark.parametrize(
    "value",
    [
        Counter("abracadabra"),
        defaultdict(int, a=1),
        pathlib.Path("/tmp/x"),
        dt.datetime(2026, 3, 29, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        dt.datetime(2026, 3, 29, tzinfo=dt.timezone(dt.timedelta(hours=3))),
        bytearray(b"abc"),
        slice(1, None, 2),
        torch.float8_e5m2,
        torch.device("cuda:1"),
        torch.Size([2, 3]),
        np.dtype(">f4"),
        Mode.A | Mode.B,
        {Colour.RED: [Colour.GREEN]},
        10**400,
        decimal.Decimal("1.10"),
        fractions.Fraction(1, 3),
        uuid.UUID(int=7),
    ],
    ids=repr,
)
def test_a_standard_type_is_exact(value: Any) -> None:
    back = round_trip(value)
    assert type(back) is type(value)
    assert back == value
    assert repr(back) == repr(value)


def test_named_tuples_and_dataclasses_may_hold_tensors() -> None:
    best = Best(0.5, [torch.randn(3)], Colour.GREEN)
    back = round_trip((Point(1.0, torch.ones(2)), best))
    assert type(back[0]) is Point
    assert torch.equal(back[0].y, torch.ones(2))
    assert type(back[1]) is Best
    assert torch.equal(back[1].weights[0], best.weights[0])
    assert back[1].colour is Colour.GREEN


def test_decoding_calls_no_class_that_the_log_names() -> None:
    called = []

    @dataclasses.dataclass
    class Loud:
        x: int

        def __post_init__(self) -> None:
            called.append(self.x)

    value = Loud(3)
    called.clear()
    assert round_trip([value])[0].x == 3
    assert called == []


def test_a_class_that_is_not_here_comes_back_as_foreign() -> None:
    back = _types.with_fields("no_such_module:Thing", {"x": 1})
    assert back == _types.Foreign("no_such_module:Thing", {"x": 1})
    assert _types.with_fields("os:system", {"x": 1}) == _types.Foreign("os:system", {"x": 1})


def test_a_registered_type_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_types, "_codecs", dict(_types._codecs))
    monkeypatch.setattr(_types, "_by_name", dict(_types._by_name))
    with pytest.raises(Unencodable, match=r"Money at it\.price"):
        round_trip({"price": Money(5)})
    florlog.register(Money, lambda money: money.cents, Money)
    assert round_trip({"price": Money(5)})["price"].cents == 5


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (object(), "no state_dict"),
        ({"a": [1, object()]}, r"object at it\.a\.1"),
        (np.zeros(2, dtype=[("a", "f4"), ("b", "i8")]), r"ndarray of dtype \[\('a'"),
        (np.array([object()]), "ndarray of dtype object"),
        (torch.empty(3, device="meta"), "device meta"),
        (torch.ones(2, requires_grad=True) * 2, "autograd"),
        (torch.nn.LazyLinear(3), "lazy"),
        (np.broadcast_to(np.ones(3), (2, 3)), "read-only"),
        (lambda: None, "no state_dict"),
        (dt.datetime(2026, 1, 1, tzinfo=type("Odd", (dt.tzinfo,), {})()), "Odd"),
    ],
    ids=lambda held: held if isinstance(held, str) else type(held).__name__,
)
def test_what_cannot_be_captured_is_refused_by_name_at_once(value: Any, words: str) -> None:
    with pytest.raises(florlog.TrackError, match=words) as caught:
        adapter("it", value)
    assert "'it'" in str(caught.value)


def test_a_list_nested_without_end_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(florlog.TrackError, match="deeper"):
        adapter("it", value)


def test_bits_tells_what_equality_does_not() -> None:
    assert bits(0.0) != bits(-0.0)
    assert bits(1) != bits(True)
    assert bits(torch.tensor([0.0])) != bits(torch.tensor([-0.0]))
