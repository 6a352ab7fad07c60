"""From mappings and ``--set`` to dataclasses; messages name the full key and where the value came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark import config
from benchmark.api import MethodConfig
from benchmark.config import Layer, Range
from benchmark.errors import PluginError, UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    top_k: int = 5
    pool_size: int = 10
    lr: float = 0.03
    mask: bool = True
    style: Literal["a", "b"] = "a"
    clip: float | None = None
    sizes: tuple[int, ...] = (1, 2)
    file: Path = Path("x")
    name: str = "n"

    def __post_init__(self) -> None:
        if self.top_k > self.pool_size:
            raise ValueError(
                f"top_k: {self.top_k} is larger than pool_size ({self.pool_size}); use 1..{self.pool_size}"
            )

    @property
    def rate(self) -> float:
        return self.lr * 2


def resolve(**values: Any) -> tuple[Options, dict[str, str]]:
    return config.resolve(Options, [Layer("--set", values)], key="method.l2p")


def test_later_layers_win_and_origins_are_kept() -> None:
    layers = [
        Layer("track nano", {"lr": 0.1, "top_k": 2}),
        Layer("run.toml", {"lr": 0.2}),
        Layer("--set", {"lr": "0.3"}),
    ]
    found, origin = config.resolve(Options, layers, key="method.l2p")
    assert (found.lr, found.top_k, found.pool_size) == (0.3, 2, 10)
    assert (origin["lr"], origin["top_k"], origin["pool_size"]) == ("--set", "track nano", "default")


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("top_k", "3", 3),
        ("lr", "1e-3", 0.001),
        ("lr", 1, 1.0),
        ("mask", "off", False),
        ("mask", "True", True),
        ("style", "b", "b"),
        ("clip", "none", None),
        ("clip", "0.5", 0.5),
        ("sizes", "3,4,5", (3, 4, 5)),
        ("sizes", [7], (7,)),
        ("file", "a/b", Path("a/b")),
    ],
)
def test_strings_are_parsed_by_type(field: str, text: object, value: object) -> None:
    found = getattr(resolve(**{field: text})[0], field)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("top_k", "1.5", "--set: method.l2p.top_k: '1.5' is not a whole number"),
        ("top_k", True, "--set: method.l2p.top_k: True is not a whole number"),
        ("lr", "fast", "--set: method.l2p.lr: 'fast' is not a number"),
        ("lr", "nan", "is not a finite number"),
        ("mask", "maybe", "is not true or false"),
        ("mask", 2, "is not true or false"),
        ("style", "c", "--set: method.l2p.style: 'c' is not allowed"),
        ("sizes", "1,x", "is not a whole number"),
        ("name", 3, "is not text"),
        ("top_k", "12", r"--set: method.l2p.top_k: 12 is larger than pool_size \(10\); use 1..10"),
    ],
)
def test_wrong_values_name_the_full_key(field: str, text: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(**{field: text})


def test_unknown_option_is_suggested() -> None:
    with pytest.raises(UsageError, match=r"--set: unknown option `method.l2p.topk`") as caught:
        resolve(topk="3")
    assert "method.l2p.top_k" in str(caught.value.hint)


def test_option_without_default_must_be_given() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Needs:
        path: str

    Needs.__annotations__["path"] = str
    with pytest.raises(UsageError, match=r"m\.x\.path has no default"):
        config.resolve(Needs, [], key="m.x")


@pytest.mark.parametrize("item", ["lr", "=3", " =3"])
def test_malformed_assignments(item: str) -> None:
    with pytest.raises(UsageError, match="not of the form key=value"):
        config.parse_assignments([item])


def test_assignments_keep_further_equal_signs() -> None:
    assert config.parse_assignments(["a = b=c", "l2p.lr=1"]) == {"a": "b=c", "l2p.lr": "1"}


def test_toml(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[method.l2p]\nlr = 0.5\n", encoding="utf-8")
    assert config.read_toml(path) == {"method": {"l2p": {"lr": 0.5}}}
    path.write_text("lr = = 3", encoding="utf-8")
    with pytest.raises(UsageError, match=r"run\.toml: not valid TOML"):
        config.read_toml(path)
    with pytest.raises(UsageError, match=r"none\.toml"):
        config.read_toml(tmp_path / "none.toml")


def test_properties_are_derived_values() -> None:
    assert config.derived(Options(lr=0.5)) == {"rate": 1.0}


@given(
    st.builds(
        Options,
        top_k=st.integers(1, 5),
        lr=st.floats(allow_nan=False, allow_infinity=False),
        mask=st.booleans(),
        clip=st.none() | st.floats(-9, 9),
        sizes=st.lists(st.integers(-config.LARGEST, config.LARGEST), min_size=1).map(tuple),
        name=st.text(),
    )
)
def test_round_trip_through_json_values(options: Options) -> None:
    again, _ = config.resolve(Options, [Layer("file", config.as_dict(options))], key="k")
    assert again == options


@given(st.integers(-config.LARGEST, config.LARGEST), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_round_trip_through_text(pool: int, lr: float, mask: bool) -> None:
    values = {"pool_size": str(pool), "top_k": str(pool), "lr": repr(lr), "mask": str(mask)}
    found, _ = config.resolve(Options, [Layer("--set", values)], key="k")
    assert (found.pool_size, found.lr, found.mask) == (pool, lr, mask)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a = " + "1" * 5000, "not valid TOML"),
        ("a = " + "[" * 100_000, "not valid TOML"),
        ("a = " + "{a=" * 50_000, "not valid TOML"),
        ("a = '" + "x" * 9000, "not valid TOML"),
        ("a" * 9000, "not valid TOML"),
    ],
    ids=["digits", "lists", "tables", "text", "key"],
)
def test_what_no_reader_of_toml_takes_is_one_message(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(content)
    with pytest.raises(UsageError, match=message) as caught:
        config.read_toml(tmp_path / "run.toml")
    assert len(caught.value.message) < 400


def test_a_mark_at_the_beginning_of_a_file_is_read_over(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_bytes(b"\xef\xbb\xbf[run]\nseed = 1\n")
    assert config.read_toml(tmp_path / "run.toml") == {"run": {"seed": 1}}


@pytest.mark.parametrize("hint", [bool, int, float, str, Path, Literal["a", "b"], tuple[int, ...], int | None])
@pytest.mark.parametrize(
    "value",
    [
        "x\x1b" * 5000,
        "9" * 5000,
        10**4000,
        10**5000,
        [10**5000],
        {"a": 1},
        [["x" * 9000]],
        2**63,
        "nan",
        b"x",
        object(),
    ],
    ids=lambda value: repr(value)[:10] if not isinstance(value, (int, list)) else type(value).__name__,
)
def test_no_value_breaks_a_message(hint: Any, value: object) -> None:
    try:
        config.coerce(value, hint, where="run.toml: method.x.y")
    except UsageError as error:
        assert len(error.message) < 400  # noqa: PT017
        assert error.message.isprintable()  # noqa: PT017


def test_options_of_a_plugin_that_break_are_blamed_on_it() -> None:
    @dataclass(frozen=True)
    class Raises:
        x: int = 1

        def __post_init__(self) -> None:
            raise SystemExit(0)

    @dataclass(frozen=True)
    class Odd:
        x: complex = 1j

    for odd, values in ((Raises, {}), (Odd, {"x": "1"}), (int, {})):
        with pytest.raises(PluginError, match=r"method\.odd"):
            config.resolve(odd, [Layer("--set", values)], key="method.odd")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limited:
    count: Annotated[int, Range(min=1)] = 1
    share: Annotated[float | None, Range(min=0, below=1)] = None
    sizes: Annotated[tuple[int, ...], Range(min=2, max=4)] = (2,)
    rate: Annotated[float, Range(above=0)] = 0.1
    free: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Again(Limited):
    count: int = 3
    rate: Annotated[float, Range(max=9)] = 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": "0"}, r"--set: m\.x\.count: 0 is too small; use 1 or more"),
        ({"share": "1"}, r"share: 1\.0 is out of range; use 0 or more and less than 1"),
        ({"share": -0.1}, "share: -0.1 is out of range"),
        ({"sizes": "2,5"}, r"sizes: 5 is out of range; use 2\.\.4"),
        ({"rate": 0}, r"rate: 0\.0 is not positive; use more than 0"),
    ],
)
def test_numbers_are_held_to_the_ranges_that_fields_declare(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        config.resolve(Limited, [Layer("--set", values)], key="m.x")
    config.resolve(Limited, [Layer("--set", {"share": "none", "sizes": "2,4", "free": "-9"})], key="m.x")


def test_a_subclass_keeps_the_range_of_a_field_unless_it_declares_another() -> None:
    assert {name: str(limits) for name, limits in config.ranges(Again).items()} == {
        "count": "1 or more",
        "share": "0 or more and less than 1",
        "sizes": "2..4",
        "rate": "9 or less",
    }


def test_options_of_methods_are_checked_wherever_they_are_made() -> None:
    @dataclass(frozen=True, kw_only=True, slots=True)
    class Mine(MethodConfig):
        rank: Annotated[int, Range(min=1)] = 8

    with pytest.raises(ValueError, match="rank: 0 is too small; use 1 or more"):
        Mine(rank=0)
    with pytest.raises(ValueError, match="batch_size: 0 is too small"):
        Mine(batch_size=0)
