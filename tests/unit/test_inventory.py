"""Data commands: lists, gets, verifies, adds and describes data sets, whole or damaged."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmark import data, data_facts, inventory, readers
from benchmark.cli import main
from benchmark.data import DataSet, Download, Form, Mirror
from benchmark.errors import EXIT_DATA, EXIT_OK, EXIT_USAGE, DataMissing
from benchmark.inventory import Known
from benchmark.samples import Samples
from benchmark.scenario import ScenarioRequest

NAMES = ("cat", "dog")
COUNT = 3  # images per class and part


def png(shade: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), shade, np.uint8)).save(out, "PNG")
    return out.getvalue()


FILES = {
    f"{part}/{name}/{number}.png": png(100 * (part == "test") + 10 * place + number)
    for part in ("train", "test")
    for place, name in enumerate(NAMES)
    for number in range(COUNT)
}


def packed(more: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in {**FILES, **({more: b"x"} if more else {})}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def look(root: Path) -> Form | None:
    folder = data.find(("things",), root)
    if folder is None or not (folder / "images").is_dir():
        return None
    parts = {part: folder / "images" / part for part in ("train", "test")}
    classes = readers.class_folders(parts, NAMES)
    found = [path for folders in classes.values() for one in folders for path in readers.image_files(one)]
    return Form(name="tree", files=tuple(found))


def contents(request: ScenarioRequest) -> tuple[dict[str, Samples], dict[str, str]]:
    root = data.data_root(request.data_root)
    with THINGS.reading(root):
        folder = data.find(("things",), root)
        if folder is None:
            raise DataMissing(f"not found below {root}")
        parts = {part: folder / "images" / part for part in ("train", "test")}
        found = {}
        for part, classes in readers.class_folders(parts, NAMES).items():
            decoded, labels = readers.read_tree(classes, what=part)
            if len(labels) != 2 * COUNT:
                raise DataMissing(f"the {part} set holds {len(labels)} images instead of {2 * COUNT}")
            found[part] = Samples(torch.from_numpy(decoded.images), torch.arange(len(labels)), torch.from_numpy(labels))
    return found, {"layout": "tree"}


THINGS = DataSet(
    title="Things",
    folders=("things",),
    layouts=("images/{train,test}/<class>/*.png",),
    licence="CC0",
    source="a shop",
    class_names=NAMES,
    look=look,
    contents=contents,
)


def write_tree(folder: Path) -> Path:
    for name, content in FILES.items():
        (folder / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).write_bytes(content)
    return folder


def only(monkeypatch: pytest.MonkeyPatch, dataset: DataSet) -> None:
    """The commands know this data set alone."""
    entry = Known(dataset, ["split-things"], dataset.licence, dataset.source, dataset.size / 1e6)
    monkeypatch.setattr(inventory, "known", lambda report=None: {"things": entry})


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("BENCH_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "root"))
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    only(monkeypatch, THINGS)
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def left(folder: Path) -> list[str]:
    """Files, but no locks."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.endswith(".lock"))


# --- list ---------------------------------------------------------------------------------------


def test_list_says_what_is_known_and_here(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == EXIT_OK
    said = capsys.readouterr().out
    assert "things: Things, absent" in said
    assert "get        by hand: a shop" in said
    assert "licence    CC0" in said
    assert "scenarios  split-things" in said
    write_tree(root / "things")
    assert main(["data", "list", "--json"]) == EXIT_OK
    (row,) = json.loads(capsys.readouterr().out)["data sets"]
    assert row["here"] == "here (tree)"
    assert row["bytes here"] == sum(map(len, FILES.values()))
    (root / "things" / "images" / "test" / "dog").rename(root / "things" / "images" / "test" / "wolf")
    assert main(["data", "list"]) == EXIT_OK
    assert "things: Things, damaged: " in capsys.readouterr().out


def test_an_unknown_name_is_a_usage_error(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("get", "verify", "stats"):
        assert main(["data", verb, "thing"]) == EXIT_USAGE
        assert "unknown data set `thing`\nhint: did you mean `things`?" in capsys.readouterr().err


@pytest.fixture(scope="module")
def every() -> dict[str, Known]:
    """All data sets of all scenarios, which takes seconds to import."""
    told: list[str] = []
    found = inventory.known(told.append)
    assert told == []
    return found


def test_every_scenario_that_names_data_has_them_in_the_list(every: dict[str, Known]) -> None:
    assert {"cifar10", "cifar100", "mnist", "pacs"} <= every.keys()
    for entry in every.values():
        assert entry.scenarios
        assert entry.licence
        assert entry.source


# --- get ----------------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `Server.files`; answers HEAD as the hub does. The first answers may break off."""

    server: Server

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.asked.append((self.command, self.path, asked))
        content = server.files.get(self.path)
        if content is None:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if body:
            content = content[start:]
            if server.breaks:
                server.breaks -= 1
                content = content[: len(content) // 2]
            self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.breaks = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def download(server: Server, content: bytes, path: str = "/things.tar.gz", **facts: Any) -> Download:
    server.files[path] = content
    known = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    return Download(**{"url": f"{server.url}{path}", "file": path.strip("/"), **known, **facts})


def with_downloads(*every: Download, **facts: Any) -> DataSet:
    import dataclasses

    return dataclasses.replace(THINGS, downloads=every, **facts)


def test_get_fetches_resumes_checks_and_unpacks(
    server: Server, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.breaks = 2
    more = download(server, b"one line", "/notes.txt", md5=hashlib.md5(b"one line").hexdigest(), sha256="")
    only(monkeypatch, with_downloads(download(server, packed(), unpack="images"), more))
    assert main(["data", "get", "things"]) == EXIT_OK
    assert left(root / "things") == sorted(["notes.txt", *(f"images/{name}" for name in FILES)])
    assert [asked for _, path, asked in server.asked if path == "/things.tar.gz" and asked]
    said = capsys.readouterr()
    assert str(root / "things") in said.out
    assert "unpacking" in said.err
    asked = len(server.asked)
    assert main(["data", "get", "Things"]) == EXIT_OK
    assert "Things is here (tree)" in capsys.readouterr().out
    assert len(server.asked) == asked


def test_a_folder_of_an_archive_becomes_that_of_the_data_set(
    server: Server, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import dataclasses

    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in {
            **{f"Things_2011/images/{name}": png for name, png in FILES.items()},
            "more.txt": b"x",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    dataset = dataclasses.replace(with_downloads(download(server, out.getvalue(), inside="Things_2011")), look=None)
    only(monkeypatch, dataset)
    folder = root / "things"
    # An unpacking that was stopped: the archive is there, and a part of what it holds.
    (folder / "images" / "train").mkdir(parents=True)
    (folder / "images" / "train" / "half.png").write_bytes(b"x")
    (folder / "things.tar.gz").write_bytes(out.getvalue())
    assert main(["data", "get", "things"]) == EXIT_OK
    assert left(folder) == sorted(f"images/{name}" for name in FILES)
    assert server.asked == []
    assert main(["data", "get", "things"]) == EXIT_OK
    assert server.asked == []
    assert "`bench data get things` fetches and unpacks" in str(dataset.missing(root, "x").hint)
    other = with_downloads(download(server, out.getvalue(), inside="Other"))
    (folder / "things.tar.gz").write_bytes(out.getvalue())
    with pytest.raises(DataMissing, match="holds no folder Other"):
        inventory.get(other, root)
    assert not (folder / ".unpacked").exists()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ({"sha256": "0" * 64}, "brought the wrong file: .*sha256 .*; it was deleted"),
        ({"size": 17}, "the server offers .* bytes instead of 17"),
        ({"escape": "../evil"}, r"holds the path `\.\./evil`, which leads out of its folder"),
    ],
)
def test_what_is_wrong_leaves_nothing_behind(
    spoil: dict[str, Any], said: str, server: Server, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = packed(spoil.pop("escape", ""))
    dataset = with_downloads(download(server, content, unpack="images", **spoil))
    with pytest.raises(DataMissing, match=said):
        inventory.get(dataset, root)
    assert [name for name in left(root.parent) if name != "things.tar.gz"] in ([], ["root/things/things.tar.gz"])
    assert not (root / "things" / "images").exists()


def test_get_is_forbidden_offline_and_without_a_source(
    server: Server, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "get", "things"]) == EXIT_DATA
    assert "Things: it is not fetched by itself" in capsys.readouterr().err
    only(monkeypatch, with_downloads(download(server, packed(), unpack="images")))
    assert main(["data", "get", "things", "--from", "hub"]) == EXIT_DATA
    assert "it has no source of the kind `hub`" in capsys.readouterr().err
    monkeypatch.setenv("BENCH_OFFLINE", "1")
    assert main(["data", "get", "things"]) == EXIT_DATA
    assert server.asked == []


def mirrored(server: Server, monkeypatch: pytest.MonkeyPatch, **facts: Any) -> DataSet:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    table = b"a table" * 1000
    path = f"/datasets/owner/things/resolve/{'0' * 40}/sub/train.parquet"
    file = download(server, table, path, **{"url": "sub/train.parquet", "file": "train.parquet", **facts})
    return with_downloads(mirror=Mirror(repository="owner/things", revision="0" * 40, files=(file,)))


def test_a_mirror_on_the_hub_is_fetched(server: Server, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = mirrored(server, monkeypatch)
    assert inventory.get(dataset, root) == root / "things"
    assert left(root / "things") == ["train.parquet"]
    asked = len(server.asked)
    assert inventory.get(dataset, root) == root / "things"
    assert len(server.asked) == asked


def test_a_mirror_is_tried_where_the_source_fails(
    server: Server, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import dataclasses

    gone = download(server, b"x", "/gone.tar.gz")
    del server.files["/gone.tar.gz"]
    dataset = dataclasses.replace(mirrored(server, monkeypatch), downloads=(gone,))
    with pytest.raises(DataMissing, match="HTTP 404"):
        inventory.get(dataset, root, source="origin")
    inventory.get(dataset, root)
    assert left(root / "things") == ["train.parquet"]
    assert "trying the mirror huggingface.co/datasets/owner/things at 00000000" in capsys.readouterr().err


def test_a_wrong_mirror_is_refused(server: Server, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataMissing, match=r"train\.parquet of .* is the wrong file: .* it was deleted"):
        inventory.get(mirrored(server, monkeypatch, sha256="0" * 64), root)
    assert [name for name in left(root / "things") if name.endswith("parquet")] == []


def test_an_absent_mirror_is_one_line(server: Server, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = mirrored(server, monkeypatch)
    server.files.clear()
    with pytest.raises(DataMissing, match=r"fetching sub/train\.parquet of owner/things \w+: .") as caught:
        inventory.get(dataset, root)
    assert "\n" not in caught.value.message


# --- verify -------------------------------------------------------------------------------------


def test_verify_reads_everything_and_lists_what_it_cannot(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "verify", "things"]) == EXIT_DATA
    assert f"Things: not found below {root}" in capsys.readouterr().err
    folder = write_tree(root / "things")
    assert main(["data", "verify", "things"]) == EXIT_OK
    assert "Things: 12 files read, all as they should be" in capsys.readouterr().out
    broken = folder / "images" / "test" / "cat" / "1.png"
    broken.write_bytes(broken.read_bytes()[:45])
    other = folder / "images" / "train" / "dog" / "0.png"
    other.write_bytes(b"a text")
    assert main(["data", "verify", "things"]) == EXIT_DATA
    said = capsys.readouterr()
    assert [line.partition(": ")[0] for line in said.out.splitlines()] == [str(other), str(broken)]
    assert "Things: 2 of 12 files cannot be read or are not what was published" in said.err


def test_verify_holds_counts_against_the_table(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (write_tree(root / "things") / "images" / "test" / "cat" / "1.png").unlink()
    assert main(["data", "verify", "things"]) == EXIT_DATA
    assert "Things: the test set holds 5 images instead of 6" in capsys.readouterr().err


def test_tables_and_published_hashes_are_verified(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from benchmark.readers.verifying import problem

    path = tmp_path / "a.parquet"
    cells = [{"bytes": png(1)}, {"bytes": png(2)[:50]}, {"bytes": None}]
    pq.write_table(pa.table({"img": cells, "label": [0, 1, 1]}), path)
    assert "row 1 is not a readable image" in str(problem(path))
    assert "row 2 is no encoded image" in str(problem(path))
    pq.write_table(pa.table({"img": cells[:1], "label": [0]}), path)
    assert problem(path) is None
    path.write_bytes(path.read_bytes()[:-9])
    assert "is truncated or damaged" in str(problem(path))
    (tmp_path / "b").write_bytes(b"x")
    assert problem(tmp_path / "b", hashlib.md5(b"x").hexdigest()) is None
    assert "its MD5 is" in str(problem(tmp_path / "b", "0" * 32))
    os.mkfifo(tmp_path / "c.png")
    assert "is a FIFO, not a file" in str(problem(tmp_path / "c.png"))


# --- add ----------------------------------------------------------------------------------------


def test_add_recognises_a_folder_and_links_it(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = write_tree(tmp_path / "else where")
    assert main(["data", "add", str(elsewhere)]) == EXIT_OK
    said = capsys.readouterr()
    assert said.out == f"Things (tree): {root / 'things'} -> {elsewhere}\n"
    assert "read by split-things" in said.err
    assert (root / "things").is_symlink()
    assert main(["data", "verify", "things"]) == EXIT_OK
    capsys.readouterr()
    assert main(["data", "add", str(elsewhere)]) == EXIT_DATA
    assert "Things is at" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "said", "code"),
    [
        (lambda f: f.mkdir(), "mine is no data set that a scenario reads", EXIT_DATA),
        (lambda f: f.write_bytes(b"x"), "mine is no data set that a scenario reads", EXIT_DATA),
        (lambda f: None, "mine: there is nothing", EXIT_DATA),
        (lambda f: (write_tree(f), (f / "images/test/dog").rename(f / "images/test/x")), "no data set", EXIT_DATA),
        (lambda f: os.mkfifo(f), "mine is a FIFO, not a file", EXIT_DATA),
    ],
)
def test_what_is_no_data_set_is_not_added(
    make: Any, said: str, code: int, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "mine")
    assert main(["data", "add", str(tmp_path / "mine")]) == code
    assert said in capsys.readouterr().err
    assert list(root.iterdir()) == []


# --- statistics ---------------------------------------------------------------------------------


def test_statistics_count_what_is_twice(capsys: pytest.CaptureFixture[str], root: Path) -> None:
    folder = write_tree(root / "things")
    (folder / "images/train/cat/1.png").write_bytes(FILES["train/cat/0.png"])
    (folder / "images/test/dog/1.png").write_bytes(FILES["train/cat/0.png"])
    assert main(["data", "stats", "things", "--json"]) == EXIT_OK
    found = json.loads(capsys.readouterr().out)
    train, test = found["parts"]["train"], found["parts"]["test"]
    assert (train["samples"], train["per_class"], train["absent"]) == (6, [3, 3], [])
    assert train["sizes"] == {"6x4": 6}
    assert (train["duplicates"], train["shared"]) == (1, 0)
    assert (test["duplicates"], test["shared"]) == (0, 1)


def test_statistics_do_not_hang_on_the_order_of_samples() -> None:
    images = torch.arange(4 * 12, dtype=torch.uint8).reshape(4, 3, 2, 2)
    labels = torch.tensor([0, 1, 1, 0])
    samples = Samples(images, torch.arange(4), labels)
    first = data_facts.describe({"all": samples}, NAMES, {"layout": "x"})
    again = data_facts.describe({"all": samples.subset(torch.tensor([2, 0, 3, 1]))}, NAMES, {"layout": "y"})
    assert first == again
    other = Samples(images, torch.arange(4), torch.tensor([0, 1, 0, 0]))
    told = data_facts.differences(first, data_facts.describe({"all": other}, NAMES, {}))
    assert told[0] == "all: per_class [1, 3] instead of [2, 2]"
    assert told[1].startswith("all: sha256 ")
    subset = data_facts.describe({"all": other}, NAMES, {"subset": "4 of 5"})
    assert data_facts.differences(first, subset) == []
    assert data_facts.differences(first, {**subset, "classes": 3}) == ["3 classes instead of 2"]


@pytest.mark.filterwarnings("ignore:.*re-encoded:UserWarning")  # CIFAR-10 may be a JPEG copy, and says so
@pytest.mark.parametrize("name", ["mnist", "pacs", "cifar10", "cifar100"])
def test_data_here_are_as_in_the_committed_statistics(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = inventory.one(name)
    root = os.environ.get("BENCH_DATA")
    if not root or inventory.state(entry.dataset, Path(root)).form is None:
        pytest.skip(f"BENCH_DATA holds no {entry.dataset.title}")
    assert main(["data", "stats", name]) == EXIT_OK
    assert entry.dataset.facts is not None
    committed = data_facts.read(entry.dataset.facts)
    assert committed is not None
    assert committed["classes"] == len(entry.dataset.class_names)


# --- sets that only scenarios read, and shards --------------------------------------------------


def test_a_set_that_only_a_scenario_reads_is_counted_and_verified_as_it_is_read(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import dataclasses

    from benchmark import registry
    from benchmark.scenario import Experience, Scenario
    from benchmark.specs import ScenarioSpec

    @dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """No options."""

    def build(config: Config, request: ScenarioRequest) -> Scenario:
        found, _ = contents(request)
        one, two = (torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5]))
        parts = tuple(
            Experience(train=found["train"].subset(rows), test=found["test"], classes=(0, 1), domain=domain)
            for rows, domain in ((one, "day"), (two, "night"))
        )
        return Scenario.of(spec, config, version=1, experiences=parts, class_names=NAMES)

    plain = dataclasses.replace(THINGS, look=None, contents=None)
    spec = ScenarioSpec(
        name="split-things", build=build, config=Config, summary="things", family="domain-il", tracks={"mini": "plain"},
        data=(plain,),
    )  # fmt: skip
    loaded = registry.Loaded(spec=spec, entry=registry.load_scenario("split-glyphs").entry, code_sha256="0" * 64)
    only(monkeypatch, plain)
    monkeypatch.setattr(registry, "load_scenario", lambda name: loaded)
    assert main(["data", "stats", "things"]) == EXIT_DATA
    assert "Things: not found below" in capsys.readouterr().err
    folder = write_tree(root / "things")
    assert main(["data", "stats", "things", "--json"]) == EXIT_OK
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert "as `split-things` reads it" in said.err
    assert {name: part["samples"] for name, part in told["parts"].items()} == {
        "day train": 3, "day test": 6, "night train": 3,
    }  # fmt: skip
    assert told["parts"]["day train"]["absent"] == ["dog"]
    assert main(["data", "list"]) == EXIT_OK
    assert "things: Things, here (not looked at)" in capsys.readouterr().out
    assert main(["data", "verify", "things"]) == EXIT_OK
    assert "Things: 12 files read" in capsys.readouterr().out
    (folder / "images" / "test" / "cat" / "0.png").write_bytes(b"x")
    assert main(["data", "verify", "things"]) == EXIT_DATA


def test_webdataset_shards_are_refused_with_the_way_round(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(2):
        with tarfile.open(shards / f"{number:06d}.tar", "w") as archive:
            member = tarfile.TarInfo("sample.cls")
            archive.addfile(member, io.BytesIO())
    for arguments in (["data", "check", str(shards)], ["data", "add", str(shards)]):
        assert main(arguments) == EXIT_DATA
        said = capsys.readouterr().err
        assert "000000.tar and 1 more archives: images in tar archives (webdataset) are not read" in said
        assert "hint: extract them (tar -xf)" in said
    assert main(["data", "check", str(shards / "000001.tar")]) == EXIT_DATA
    assert "000001.tar: images in tar archives" in capsys.readouterr().err


def test_every_known_set_says_its_form_its_licence_and_how_to_get_it(
    every: dict[str, Known], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inventory, "known", lambda report: every)
    assert main(["data", "list", "--json", "--data-root", str(Path(__file__).parent)]) == EXIT_OK
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["data sets"]}
    assert {"sst2", "boolq", "e2e-nlg", "webnlg", "lama", "yelp", "svhn", "domainnet"} <= rows.keys()
    for row in rows.values():
        assert row["here"] == "absent"
        assert all(row[key] for key in ("title", "forms", "licence", "get", "source", "scenarios"))
    assert rows["svhn"]["get"].startswith("bench data get svhn (246.3 MB)")
    assert rows["svhn"]["scenarios"][0] == "split-svhn"  # which reads nothing else
    assert rows["usps"]["download MB"] is None
