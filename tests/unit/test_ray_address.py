"""The executor `ray` asks whether anybody listens before Ray does; the rest is in `tests/cluster/test_ray.py`."""

from __future__ import annotations

import socket

import pytest

from bench_executors import on_ray


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_a_cluster_that_is_not_there_is_found_out_at_once(form: str) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = form.format(server.getsockname()[1])
        with pytest.raises(OSError, match="refused"):
            on_ray._knock(address)
        server.listen()
        on_ray._knock(address)


@pytest.mark.parametrize("address", ["", "auto", "local"])
def test_addresses_without_a_port_are_for_ray(address: str) -> None:
    on_ray._knock(address)
