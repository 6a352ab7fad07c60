"""Fixtures of the whole suite: no network, a private cache, golden files, a record to play with."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import runpy
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from benchmark import registry

# How long an example takes is a matter of the machine, and of what else it does.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files; review them like code")
    parser.addoption("--parity", type=Path, metavar="FILE", help="write the table of deviations from official code")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("parity"):
        parity = runpy.run_path(str(Path(__file__).with_name("parity.py")))
        config.pluginmanager.register(parity["Parity"](config.getoption("parity")))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--dist loadgroup`` a file stays on one worker, with exceptions that keep all workers busy to the end.

    In the contract each subject is a unit of its own, in ``e2e`` each test. Avalanche, which takes seconds to import,
    is imported by one worker. What waits for processes comes first (``--no-loadscope-reorder`` leaves it there).
    """
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        subject = str(parameters.get("method") or parameters.get("scenario") or "")
        if "contract" in item.path.parts:
            group = f"{item.path}:{subject}"
        else:
            group = item.nodeid if "e2e" in item.path.parts else str(item.path)
        if "avalanche" in subject or "avalanche" in item.path.name:
            group = "avalanche"
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: not {"e2e", "plugins"} & set(item.path.parts))


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch, git_state: Callable[[Path], Any]) -> None:
    """What takes time in every run and proves nothing here: no test pulls the plug, and nobody commits meanwhile."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    monkeypatch.setattr("benchmark.run.provenance.git_state", git_state)


@pytest.fixture(scope="session")
def git_state() -> Callable[[Path], Any]:
    """The state of the checkout, asked once."""
    from benchmark.run import provenance

    return functools.cache(provenance.git_state)


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections leave this machine in no test; servers on it are fine."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_here(self.family, address[0]):
            raise OSError(f"the test suite has no network, but something connects to {address[0]}")
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@functools.cache
def _is_here(family: int, host: str) -> bool:
    """Whether it is an address of this machine, which alone can be bound; Ray, for one, uses the outer one."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError, OSError), socket.socket(family) as probe:
        probe.bind((str(ipaddress.ip_address(host)), 0))
        return True
    return False


@pytest.fixture(autouse=True)
def _no_plugin_files_left() -> Iterator[None]:
    """A plugin that one test brings by ``-p FILE.py`` is there in no other."""
    before = list(registry._files)
    yield
    registry._files[:] = before


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all workers: pictures are rendered and data sets decoded once."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    (folder / "cache").mkdir(exist_ok=True)
    return folder / "cache"


@pytest.fixture(autouse=True)
def _private_folders(monkeypatch: pytest.MonkeyPatch, session_cache: Path) -> None:
    """Tests never touch the user's cache; rendered images are shared within the session."""
    monkeypatch.setenv("BENCH_CACHE", str(session_cache))
    monkeypatch.setenv("NO_COLOR", "1")
    for name in ("BENCH_DISABLE_PLUGINS", "BENCH_TRACE_PLUGINS", "BENCH_DEBUG", "BENCH_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


TOYS = """
from benchmark import hookimpl
from benchmark.testing.toys import TOY_METHOD, TOY_SCENARIO

@hookimpl
def bench_register_methods():
    return [TOY_METHOD]

@hookimpl
def bench_register_scenarios():
    return [TOY_SCENARIO]
"""


@pytest.fixture(scope="module")
def plugin_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The plugin whose text a test module calls `PLUGIN`, or the toys, while the tests of the module run."""
    name = request.module.__name__.rpartition(".")[2].replace("test_", "plugin_of_")
    path, before = tmp_path_factory.mktemp("plugins") / f"{name}.py", list(registry._files)
    path.write_text(getattr(request.module, "PLUGIN", TOYS), encoding="utf-8")
    registry.add_file(path)
    yield registry._files[-1]
    registry._files[:] = before


@pytest.fixture
def registry_as_it_was() -> Iterator[None]:
    """Plugins that a test adds as files are forgotten behind it."""
    from benchmark import registry

    before = list(registry._files)
    yield
    registry._files[:] = before


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads cost more than they give for small tensors."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def data_root() -> Path:
    """Real data sets; tests that need them are skipped where there are none."""
    root = os.environ.get("BENCH_DATA")
    if not root:
        pytest.skip("set BENCH_DATA to a folder with real data sets to run this")
    return Path(root)
