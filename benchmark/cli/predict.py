"""``bench predict``: what the trained method of a run says of images or texts of one's own."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark.cli import asking, terminal
from benchmark.errors import EXIT_OK, DataMissing, UsageError
from benchmark.files import user_path

if TYPE_CHECKING:
    from benchmark.results.trained import Answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("run", type=user_path, metavar="RECORD", help="path of a record, or the beginning of a run id")
    parser.add_argument("images", nargs="*", type=user_path, metavar="IMAGE", help="image files")
    parser.add_argument(
        "--text",
        action="append",
        default=[],
        metavar="TEXT",
        help='a text; several fields as JSON: \'{"premise": "...", "hypothesis": "..."}\'; repeatable',
    )
    parser.add_argument(
        "--texts", type=user_path, metavar="FILE", help="a text in each line; .jsonl: an object of fields in each line"
    )
    parser.add_argument("--top", type=asking.positive, default=1, metavar="K", help="show the K most probable classes")
    parser.add_argument(
        "--experience",
        type=asking.count,
        metavar="N",
        help="the experience of the samples, from 0; of task-incremental runs",
    )
    parser.add_argument(
        "--names", metavar="A,B[,...]", help="classify among these names; of methods with open vocabulary"
    )
    parser.add_argument(
        "--results", type=user_path, default=Path("runs"), metavar="DIR", help="for run ids (default: runs)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default auto)")
    parser.add_argument("--weights", type=user_path, metavar="FILE", help="weights of your own, of a run with such")
    parser.add_argument(
        "--backbone", metavar="NAME", help="the architecture that these weights are for; default: the record's"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    _anywhere(parser)


def _anywhere(parser: argparse.ArgumentParser) -> None:
    """Lets options stand between RECORD and the images; by itself argparse takes these for none then."""
    plain = parser.parse_known_args

    def parse(args: Any = None, namespace: Any = None) -> Any:
        parser.parse_known_args = plain  # type: ignore[method-assign]
        try:
            return parser.parse_known_intermixed_args(args, namespace)
        finally:
            parser.parse_known_args = parse  # type: ignore[method-assign]

    parser.parse_known_args = parse  # type: ignore[method-assign]


def run(args: argparse.Namespace) -> int:
    """Loads the model and prints its answers.

    Raises:
        UsageError: No such record, no model kept, or nothing to predict.
        DataMissing: The model, the weights or an image are missing or damaged.
    """
    from benchmark.results import load_model

    with asking.warnings_said():
        model = load_model(
            args.run, results=args.results, device=args.device, weights=args.weights, backbone=args.backbone
        )
        samples, shown = _samples(args, model.reads)
        names = None if args.names is None else [name.strip() for name in args.names.split(",") if name.strip()]
        answers = model.predict(samples, top=args.top, experience=args.experience, names=names)
    if args.json:
        terminal.show(json.dumps([_facts(*pair) for pair in zip(shown, answers, strict=True)], indent=2))
    else:
        _print(shown, answers)
    return EXIT_OK


def _samples(args: argparse.Namespace, reads: str) -> tuple[list[Any], list[str]]:
    """What is to be predicted, and what each is called."""
    texts: list[Any] = [_parsed(text, "--text") for text in args.text]
    if args.texts is not None:
        texts += _lines(args.texts)
    if reads == "image" and texts:
        raise UsageError("--text: the method of this run reads images", hint="give image files")
    if reads != "image" and args.images:
        raise UsageError(f"{args.images[0]}: the method of this run reads texts", hint="give --text or --texts FILE")
    for path in args.images:
        if path.is_dir():
            raise UsageError(f"{path} is a folder", hint=f"name its files, e.g. {path}/*.png")
    if not args.images and not texts:
        hint = "name image files" if reads == "image" else "give --text TEXT, or --texts FILE"
        raise UsageError("there is nothing to predict", hint=hint)
    if reads == "image":
        return args.images, [str(path) for path in args.images]
    return texts, [text if isinstance(text, str) else json.dumps(text, ensure_ascii=False) for text in texts]


def _parsed(text: str, where: str, *, fields: bool = False) -> Any:
    """A text, or the fields of one that is written as a JSON object."""
    if not fields and not text.lstrip().startswith("{"):
        return text
    try:
        found = json.loads(text)
    except ValueError as error:
        if not fields:
            return text  # a text may begin with a brace
        raise DataMissing(
            f"{where}: not valid JSON: {error}", hint='one object a line, e.g. {"text": "..."}'
        ) from error
    return found


def _lines(path: Path) -> list[Any]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DataMissing(f"the texts {path} cannot be read: {what}", hint="give a text file in UTF-8") from error
    fields = path.suffix.lower() == ".jsonl"
    return [
        _parsed(line, f"{path}:{number}", fields=True) if fields else line
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]


def _facts(shown: str, answer: Answer) -> dict[str, Any]:
    if answer.text is not None:
        return {"input": shown, "text": answer.text}
    told = [{"name": name, "probability": share} for name, share in answer.probabilities]
    return {"input": shown, "name": answer.name, "label": answer.label, "probabilities": told}


def _print(shown: list[str], answers: list[Answer]) -> None:
    """One line for each class of each input, below one another."""
    wide = max(len(name) for answer in answers for name, _ in [*answer.probabilities, ("", 0.0)])
    first = min(max(map(len, shown)), 60)
    for name, answer in zip(shown, answers, strict=True):
        if answer.text is not None:
            terminal.show(f"{name}\n  {answer.text}")
            continue
        for place, (told, share) in enumerate(answer.probabilities):
            terminal.show(f"{name if not place else '':<{first}}  {told:<{wide}}  {share * 100:5.1f} %")
