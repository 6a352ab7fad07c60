"""doors-lines: files of lines ``method accuracy``."""

from __future__ import annotations

from collections.abc import Iterator

from benchmark import ImporterSpec, hookimpl
from benchmark.foreign import ForeignRun, ForeignScore, SourceFile


def read(file: SourceFile) -> Iterator[ForeignRun]:
    for number, line in enumerate(file.text.splitlines(), 1):
        name, _, value = line.partition(" ")
        if not value:
            file.other(f"line {number} is not `method accuracy`")
        score = ForeignScore(name="accuracy", value=file.value(value, number), definition="as told")
        yield ForeignRun(first_line=number, last_line=number, method=name, reported=[score])


@hookimpl
def bench_register_importers() -> list[ImporterSpec]:
    return [ImporterSpec(name="doors-lines", read=read, suite="Doors", summary="lines of a method and its accuracy")]
