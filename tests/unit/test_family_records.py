"""Families are data: what is not built in travels in the records of runs."""

from __future__ import annotations

import json

import pytest

from benchmark import families
from benchmark.errors import PluginError, UsageError
from benchmark.families import FAMILIES, Family

OWN = Family(
    name="open-world",
    summary="known and unknown classes",
    own="known_acc",
    further={"unknown": "unknown_acc"},
    harmonic=True,
    board="sets",
    headline="harmonic_mean",
    columns={"known_acc": "OS* (%)", "unknown_acc": "UNK (%)", "harmonic_mean": "HOS (%)"},
    of="HOS",
    caption="HOS: harmonic mean of both.",
)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "REGISTERED", {})
    families.register(OWN, owner="a stranger 1.0")


def test_a_registered_family_is_found_and_once_more_is_no_conflict(registered: None) -> None:
    families.register(OWN, owner="a stranger 1.0")
    assert families.get("open-world") is OWN
    assert families.get("uda") is FAMILIES["uda"]


def test_a_name_is_taken_once(registered: None) -> None:
    for taken in ("open-world", "uda"):
        with pytest.raises(PluginError, match=f"`{taken}` of me is already defined otherwise"):
            families.register(Family(name=taken, summary="another"), owner="me")


def test_an_unknown_family_is_suggested() -> None:
    with pytest.raises(UsageError, match="unknown family `udo`") as found:
        families.get("udo")
    assert "uda" in str(found.value.hint)


def test_records_keep_what_is_not_built_in(registered: None) -> None:
    assert families.facts("uda") is None
    kept = json.loads(json.dumps(families.facts("open-world")))
    families.REGISTERED.clear()  # the plugin is not installed where tables are made
    assert families.of_record("open-world", kept) == OWN


@pytest.mark.parametrize(
    "kept",
    [None, [], "text", {"board": "pie chart"}, {"columns": {"a": []}}, {"stream": 1}],
    ids=str,
)
def test_a_family_that_a_record_does_not_describe_is_tabulated_as_a_stream(kept: object) -> None:
    found = families.of_record("mine", kept)
    assert found.board == "stream"
    assert found.headline in found.columns


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"board": "pie"}, "board"), ({"board": "sets", "columns": {}}, "columns"), ({"harmonic": True}, "harmonic")],
)
def test_a_family_that_no_table_could_show_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Family(name="mine", summary="", **wrong)  # type: ignore[arg-type]
