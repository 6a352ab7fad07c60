"""``bench data check PATH``: looks at every image of a folder or list before any training."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from benchmark.cli import terminal
from benchmark.errors import EXIT_DATA
from benchmark.files import user_path

if TYPE_CHECKING:
    from benchmark.readers.survey import Survey

SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the action."""
    parser.add_argument("path", type=user_path, help="class folders, folders of domains, or a list (.txt, .csv)")
    parser.add_argument(
        "--as", dest="form", choices=("classes", "domains"), help="how to read it; default: as its folders look"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable output, nothing shortened")


def run(args: argparse.Namespace) -> int:
    """Prints what was found; exit code 4 where files cannot be read."""
    from benchmark import data
    from benchmark.readers.survey import survey

    found = survey(args.path, data.cache_root(), domains=None if args.form is None else args.form == "domains")
    if args.json:
        terminal.show(json.dumps(_facts(found), indent=2))
    else:
        for line in _lines(found):
            terminal.show(line)
    return EXIT_DATA if found.bad else 0


def _facts(found: Survey) -> dict[str, object]:
    layout = found.layout
    return {
        "layout": layout.form,
        "digest": found.digest,
        "images": len(layout.found),
        "classes": {name: {"train": train, "test": test} for name, (train, test) in found.per_class.items()},
        "domains": list(layout.domain_names),
        "train and test given": layout.test is not None,
        "sizes": [{"width": size[0], "height": size[1], "images": count} for size, count in found.sizes],
        "forms": dict(found.forms),
        "left out": list(layout.left_out),
        "other files": list(layout.found.others),
        "unreadable": dict(found.bad),
        "the same in train and test": found.shared,
        "the same": found.double,
        "the same in different classes": found.disputed,
        "classes of one image": found.single,
        "classes with too few images to test on": found.few,
    }


def _lines(found: Survey) -> Iterator[str]:
    layout, counts = found.layout, [sum(pair) for pair in found.per_class.values()]
    scenario = "--scenario domains:PATH" if layout.domain_names else "--scenario folder:PATH"
    yield f"layout      {layout.form}; for {scenario}"
    tested = sum(test for _, test in found.per_class.values())
    cut = f"{len(layout.found) - tested:,} for training, {tested:,} for testing" if tested else "cut 80/20 per class"
    yield f"images      {len(layout.found):,}, {cut}"
    yield f"classes     {len(counts)}, of {min(counts):,} to {max(counts):,} images: {_some(layout.class_names)}"
    if layout.domain_names:
        yield f"domains     {len(layout.domain_names)}: {_some(layout.domain_names)}"
    if found.sizes:
        short = [min(size) for size, _ in found.sizes]
        common = ", ".join(f"{size[0]}x{size[1]} ({count:,})" for size, count in found.sizes[:3])
        yield f"sizes       {len(found.sizes):,} of them, shorter side {min(short)} to {max(short)} pixels; {common}"
    yield f"forms       {', '.join(f'{form} ({count:,})' for form, count in found.forms.items()) or 'none'}"
    yield f"content     {found.digest[:16]}"
    for what, names in (
        ("folders left out", layout.left_out),
        ("files that are no images by their names", layout.found.others),
        ("classes of one image", found.single),
        ("classes with fewer than 5 images, none of them for testing", found.few),
    ):
        if names:
            yield f"note        {len(names):,} {what}: {_some(names)}"
    for what, groups in (
        ("images are in training and test", found.shared),
        ("images are there more than once", found.double),
        ("images have more than one class", found.disputed),
    ):
        if groups:
            yield f"note        {len(groups):,} {what}: {_some([' = '.join(group[:4]) for group in groups])}"
    for name, problem in list(found.bad.items())[:SHOWN]:
        yield f"unreadable  {name}: {problem.removeprefix(name).removeprefix(' ')}"
    if found.bad:
        more = f"{len(found.bad) - SHOWN:,} more of them; all with --json. " if len(found.bad) > SHOWN else ""
        yield f"            {more}Leave them out with --set scenario.on_error=skip"


def _some(names: object) -> str:
    listed = [str(name) for name in names]  # type: ignore[attr-defined]
    more = f", and {len(listed) - SHOWN:,} more" if len(listed) > SHOWN else ""
    return "; ".join(listed[:SHOWN]) + more
