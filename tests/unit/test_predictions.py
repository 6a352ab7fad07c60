from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.errors import DataMissing, RunFailed
from benchmark.records import predictions
from benchmark.records.predictions import Predictions


def make(rows: int, classes: int, experience: int = 0, logits: bool = True, seed: int = 0) -> Predictions:
    random = np.random.default_rng([seed, rows, classes, experience])
    scores = random.normal(size=(rows, classes)).astype(np.float32)
    order = np.argsort(-scores, axis=1)
    return predictions.table(
        experience,
        test_set=random.integers(0, 3, rows),
        sample_id=random.integers(0, 2**40, rows),
        label=random.integers(0, classes, rows),
        prediction=order[:, 0],
        top5=order[:, :5],
        confidence=random.random(rows),
        logits=scores if logits else None,
    )


def same(a: Predictions, b: Predictions) -> None:
    for name in ("experience", "test_set", "sample_id", "label", "prediction", "top5", "confidence"):
        x, y = getattr(a, name), getattr(b, name)
        assert x.dtype == y.dtype, name
        np.testing.assert_array_equal(x, y, err_msg=name)
    assert (a.logits is None) == (b.logits is None)
    if a.logits is not None:
        np.testing.assert_array_equal(a.logits, b.logits)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(1, 9)), min_size=1, max_size=3), st.booleans())
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[int, int]], logits: bool) -> None:
    joined = predictions.concat([make(rows, classes, i, logits) for i, (rows, classes) in enumerate(sizes)])
    path = tmp_path_factory.mktemp("p") / "run.parquet"
    predictions.write(path, joined)
    same(predictions.read(path), joined)


def test_joining_pads_with_classes_that_were_not_allowed() -> None:
    joined = predictions.concat([make(2, 2), make(3, 7, experience=1)])
    assert joined.top5.shape == (5, 5)
    assert (joined.top5[:2, 2:] == -1).all()
    assert joined.logits is not None
    assert np.isneginf(joined.logits[:2, 2:]).all()
    assert np.isfinite(joined.logits[2:]).all()
    same(joined.after(1), make(3, 7, experience=1))


def test_columns_are_as_promised(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "run.parquet"
    predictions.write(path, predictions.concat([make(2, 2), make(3, 7)]))
    schema = pq.read_schema(path)
    types = {field.name: str(field.type) for field in schema}
    assert list(types) == [
        "experience", "test_set", "sample_id", "label", "prediction", "confidence", "top5", "logits",
    ]  # fmt: skip
    assert [types[name] for name in ("experience", "sample_id", "confidence")] == ["int32", "int64", "float"]
    assert types["top5"].startswith("list<") and "int32" in types["top5"]  # noqa: PT018 - one fact
    assert pq.read_table(path).column("top5").to_pylist()[0] == make(2, 2).top5[0].tolist()


def test_equal_content_equal_bytes(tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        predictions.write(tmp_path / name, make(50, 8))
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
    assert len(digests) == 1


def test_tensors_are_welcome() -> None:
    expected = make(4, 6)
    found = dict(
        **{name: torch.from_numpy(getattr(expected, name)) for name in
           ("test_set", "sample_id", "label", "prediction", "top5", "confidence", "logits")}
    )  # fmt: skip
    same(predictions.table(0, **found), expected)


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match="no predictions at"):
        predictions.read(tmp_path / "none.parquet")
    damaged = tmp_path / "damaged.parquet"
    predictions.write(damaged, make(5, 3))
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(DataMissing, match="damaged predictions"):
        predictions.read(damaged)
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"label": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DataMissing, match="no column confidence, experience"):
        predictions.read(tmp_path / "other.parquet")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFailed, match="cannot write"):
        predictions.write(tmp_path / "file" / "run.parquet", make(5, 3))
    with pytest.raises(ValueError, match="some do not"):
        predictions.concat([make(2, 2), make(2, 2, logits=False)])
    with pytest.raises(ValueError, match="nothing to join"):
        predictions.concat([])
    short = {**vars(make(4, 3)), "label": np.zeros(3)}
    del short["experience"]
    with pytest.raises(ValueError, match="differ in length"):
        predictions.table(0, **short)
