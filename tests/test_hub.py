"""Published weights where the hub cannot be reached."""

import socket
import time

import pytest
from huggingface_hub import constants

from tcmgc.towers import hub


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setattr(hub.urllib.request, "getproxies", dict)


def test_a_hub_that_does_not_answer_is_asked_once_and_the_cache_used(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{port}")
    start = time.monotonic()
    with hub.offline_if_unreachable(patience=2.0):
        assert constants.HF_HUB_OFFLINE
    assert time.monotonic() - start < 10
    assert not constants.HF_HUB_OFFLINE


def test_a_hub_that_answers_is_used(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as there:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{there.getsockname()[1]}")
        with hub.offline_if_unreachable():
            assert not constants.HF_HUB_OFFLINE


def test_behind_a_proxy_nothing_is_asked(monkeypatch):
    monkeypatch.setattr(hub.urllib.request, "getproxies", lambda: {"https": "http://proxy:3128"})
    monkeypatch.setattr(constants, "ENDPOINT", "http://nowhere.invalid")
    with hub.offline_if_unreachable():
        assert not constants.HF_HUB_OFFLINE
