from __future__ import annotations

import hashlib
import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmark import data
from benchmark.data import DataSet, Download
from benchmark.errors import EXIT_DATA, DataMissing

CONTENT = bytes(range(256)) * 4000  # 1 MB


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves CONTENT, well or badly, as the server's `mode` says."""

    server: Server

    def do_GET(self) -> None:
        mode, server = self.server.mode, self.server
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        content = server.content
        if mode == "gone":
            self.send_error(404)
            return
        start = 0
        if asked and mode != "no-ranges":
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        body = content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if mode == "truncated":
            body = body[:0] if start else body[:300_000]
        if mode == "shaky":
            body = body[:300_000]
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    mode = "good"
    content = CONTENT

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("BENCH_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def described(port: int, *, size: int = len(CONTENT), md5: str | None = None) -> DataSet:
    return DataSet(
        title="Things",
        folders=("things", "Things"),
        layouts=("things.bin", "{train,test}/<class>/*.png"),
        download=Download(
            url=f"http://127.0.0.1:{port}/things.bin",
            file="things.bin",
            size=size,
            md5=md5 or hashlib.md5(CONTENT, usedforsecurity=False).hexdigest(),
        ),
    )


def fetched(server: Server, root: Path, **options: Any) -> Path:
    return data.fetch(described(server.server_port, **options), root)


def test_a_file_is_fetched_once_with_a_notice(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fetched(server, tmp_path)
    assert path == tmp_path / "things" / "things.bin"
    assert path.read_bytes() == CONTENT
    assert fetched(server, tmp_path) == path
    assert server.ranges == [None]
    said = capsys.readouterr()
    assert said.out == ""
    assert "fetching Things" in said.err
    assert f"md5 {hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()}" in said.err
    assert not list(path.parent.glob("*.part"))


def test_an_existing_folder_under_another_name_is_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "Things").mkdir()
    assert fetched(server, tmp_path) == tmp_path / "Things" / "things.bin"


def test_an_interrupted_download_is_resumed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "things.bin.part").write_bytes(CONTENT[:500_000])
    assert fetched(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["bytes=500000-"]


def test_a_connection_that_breaks_again_and_again_is_resumed(server: Server, tmp_path: Path) -> None:
    server.mode = "shaky"
    assert fetched(server, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.mode = "no-ranges"
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "things.bin.part").write_bytes(b"x" * 500_000)
    assert fetched(server, tmp_path).read_bytes() == CONTENT


def test_a_truncated_download_is_kept_for_resuming(server: Server, tmp_path: Path) -> None:
    server.mode = "truncated"
    with pytest.raises(DataMissing, match=r"closed early; .* are kept in .*things\.bin\.part and will be resumed"):
        fetched(server, tmp_path)
    assert (tmp_path / "things" / "things.bin.part").read_bytes() == CONTENT[:300_000]
    assert not (tmp_path / "things" / "things.bin").exists()
    server.mode = "good"
    assert fetched(server, tmp_path).read_bytes() == CONTENT


def test_a_wrong_checksum_is_an_error_and_leaves_nothing(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"brought the wrong file.*instead of .*md5 0000.*deleted"):
        fetched(server, tmp_path, md5="0" * 32)
    assert [path.name for path in (tmp_path / "things").iterdir() if path.suffix != ".lock"] == []


def test_a_damaged_part_is_found_by_its_checksum_and_the_next_try_works(server: Server, tmp_path: Path) -> None:
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "things.bin.part").write_bytes(b"x" * 500_000)
    with pytest.raises(DataMissing, match="brought the wrong file"):
        fetched(server, tmp_path)
    assert fetched(server, tmp_path).read_bytes() == CONTENT


def test_another_size_is_refused_before_anything_is_written(server: Server, tmp_path: Path) -> None:
    server.content = b"<html>please log in</html>"
    with pytest.raises(DataMissing, match="the server offers 26 bytes instead of 1024000"):
        fetched(server, tmp_path)
    assert not (tmp_path / "things" / "things.bin.part").exists()


def test_a_missing_page_says_so(server: Server, tmp_path: Path) -> None:
    server.mode = "gone"
    with pytest.raises(DataMissing, match="HTTP 404"):
        fetched(server, tmp_path)


def test_two_processes_fetch_once(server: Server, tmp_path: Path) -> None:
    paths: list[Path] = []
    threads = [threading.Thread(target=lambda: paths.append(fetched(server, tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.read_bytes() == CONTENT for path in paths] == [True] * 3
    assert server.ranges == [None]


def test_without_network_the_error_comes_soon_and_says_what_to_do(server: Server, tmp_path: Path) -> None:
    port = server.server_port
    server.shutdown()
    server.server_close()
    started = time.perf_counter()
    with pytest.raises(DataMissing) as caught:
        data.fetch(described(port), tmp_path)
    assert time.perf_counter() - started < 5
    assert caught.value.exit_code == EXIT_DATA
    hint = caught.value.hint or ""
    for part in (f"http://127.0.0.1:{port}/things.bin", "1000 KiB", "md5", f"{tmp_path / 'things'}", "<class>/*.png"):
        assert part in hint


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BENCH_OFFLINE", raising=False)
    monkeypatch.setattr(data, "CONNECT_SECONDS", 0.1)
    release = threading.Event()
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: release.wait(20))
    try:
        with pytest.raises(DataMissing, match="no answer within"):
            data.fetch(described(9), tmp_path)
    finally:
        release.set()


@pytest.mark.parametrize(("mode", "offline", "what"), [("never", "", "--no-download"), ("auto", "1", "BENCH_OFFLINE")])
def test_fetching_can_be_forbidden(
    mode: str, offline: str, what: str, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_OFFLINE", offline)
    with pytest.raises(DataMissing, match=f"downloads are switched off .{what}"):
        data.fetch(described(server.server_port), tmp_path, mode=mode)
    assert server.ranges == []
    assert list(tmp_path.iterdir()) == []


def test_large_sets_are_fetched_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_OFFLINE", raising=False)
    assert data.forbidden(data.SMALL, "auto") is None
    assert "--download" in (data.forbidden(data.SMALL + 1, "auto") or "")
    assert data.forbidden(data.SMALL + 1, "always") is None
    monkeypatch.setenv("BENCH_OFFLINE", "1")
    assert data.forbidden(1, "always") is not None


def test_a_folder_that_cannot_be_written_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "root").write_text("a file where the data root should be")
    with pytest.raises(DataMissing, match="cannot be written"):
        data.fetch(described(server.server_port), tmp_path / "root")


# --- folders ------------------------------------------------------------------------------------


def test_the_data_root_is_the_option_then_the_variable_then_the_users_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "option").mkdir()
    (tmp_path / "variable").mkdir()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "variable"))
    assert data.data_root(tmp_path / "option") == tmp_path / "option"
    assert data.data_root() == tmp_path / "variable"
    monkeypatch.delenv("BENCH_DATA")
    assert data.data_root() == tmp_path / "share" / "adaptbench"


def test_a_named_data_root_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataMissing, match=r"--data-root .*nowhere: no such folder"):
        data.data_root(tmp_path / "nowhere")
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataMissing, match=r"BENCH_DATA .*nowhere: no such folder"):
        data.data_root()


def test_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("BENCH_CACHE", raising=False)
    assert data.cache_root() == tmp_path / "xdg" / "adaptbench"
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "own"))
    assert data.cache_root() == tmp_path / "own"
    assert data.cache_root(tmp_path / "given") == tmp_path / "given"


@pytest.mark.parametrize(
    ("platform", "data_folder", "cache_folder"),
    [
        ("linux", ".local/share/adaptbench", ".cache/adaptbench"),
        ("darwin", "Library/Application Support/adaptbench", "Library/Caches/adaptbench"),
        ("win32", "AppData/Local/adaptbench/data", "AppData/Local/adaptbench/cache"),
    ],
)
def test_the_users_folders_follow_the_platform(
    platform: str, data_folder: str, cache_folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert data.user_folder("data") == tmp_path / data_folder
    assert data.user_folder("cache") == tmp_path / cache_folder
