"""Downloads from a server of this machine: what comes whole is there once, and whatever else comes is one line."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import socket
import struct
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness.config import ConfigError
from harness.runtime.console import Console
from harness.training.data import archives, cifar
from harness.training.data.archives import Archive, fetch
from tests import formats
from tests.formats import fails, load_small


class CountingHandler(SimpleHTTPRequestHandler):
    requests: list[str] = []  # noqa: RUF012  one list for the handlers of all requests

    def do_GET(self) -> None:
        self.requests.append(self.path)
        super().do_GET()

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def server(tmp_path):
    """The address of a server of tmp_path/served."""
    CountingHandler.requests.clear()
    (tmp_path / "served").mkdir()
    handler = partial(CountingHandler, directory=str(tmp_path / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_download_verifies_and_leaves_nothing_damaged(tmp_path, monkeypatch, server):
    archive = formats.write_cifar(tmp_path / "served", "cifar10", monkeypatch)
    monkeypatch.setattr(cifar.CIFAR10, "url", f"{server}/{archive.name}")
    root = tmp_path / "root"
    data = load_small("cifar10", root, validation=100, download=True)
    assert len(data.train) == 100
    monkeypatch.setattr(cifar.CIFAR10, "tgz_md5", "0" * 32)
    message = fails("cifar10", tmp_path / "other", download=True)
    assert "came damaged: md5" in message
    assert not list((tmp_path / "other").glob("*cifar*"))
    monkeypatch.setattr(cifar.CIFAR10, "url", f"{server}/absent")
    assert "cannot download" in fails("cifar10", tmp_path / "third", download=True)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
MOVED = b"HTTP/1.1 302 Found\r\nLocation: "
REPLIES = {
    "short": (OK + b"Content-Length: 9\r\n\r\nabcd", "it ended after 4 of 9 bytes"),
    "without an end": (OK + b"Content-Length: %d\r\n\r\nabcd" % 10**20, "it ended after 4 of 100,000,000,000,000"),
    "longer than it says": (OK + b"Content-Length: 2\r\n\r\nabcd", "came damaged: md5"),
    "of another length": (OK + b"Content-Length: 2\r\n\r\nab", "came damaged: md5"),
    "without a body": (b"HTTP/1.1 204 No\r\n\r\n", "came damaged: md5"),
    "nothing": (b"", "Remote end closed connection"),
    "of another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", "SSH-2.0-OpenSSH_9.2;"),
    "binary": (bytes(range(256)) * 20, "cannot download"),
    "an endless line": (b"HTTP/1.1 200 " + b"x" * 100_000, "more than 65536 bytes"),
    "an endless header": (OK + b"X: " + b"x" * 100_000, "more than 65536 bytes"),
    "many headers": (OK + b"X: y\r\n" * 500 + b"\r\n", "more than 100 headers"),
    "a status of lines": (b"HTTP/1.1 500 a\rb\r\n\r\n", "cannot download"),
    "a status that is none": (b"HTTP/1.1 abc\r\n\r\n", "HTTP/1.1 abc;"),
    "forbidden": (b"HTTP/1.1 403 Forbidden\r\n\r\n", "Forbidden;"),
    "a chunk that is cut": (CHUNKED + b"4\r\nabcd\r\n", "IncompleteRead"),
    "a chunk of no length": (CHUNKED + b"zz\r\nabcd", "IncompleteRead"),
    "a chunk of negative length": (CHUNKED + b"-4\r\nabcd", "non-negative"),
    "moved to a file": (MOVED + b"file:///etc/passwd\r\n\r\n", "not allowed"),
    "moved to no address": (MOVED + b"http://[::1/x\r\n\r\n", "cannot download"),
    "moved to no port": (MOVED + b"http://127.0.0.1:abc/\r\n\r\n", "nonnumeric port"),
    "moved to no name": (MOVED + b"http://a..b/\r\n\r\n", "label empty"),
}


@contextlib.contextmanager
def replying(reply: bytes, reset: bool = False, silent: bool = False):
    """The address of a server that says this to whoever asks, and then hangs up, resets, or does nothing."""
    ended = threading.Event()

    def answer(server: socket.socket) -> None:
        while not ended.is_set():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(1 << 16)
                connection.sendall(reply)
                if silent:
                    ended.wait()
                if reset:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=(server,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/file.bin"
        ended.set()
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def download(url: str, root: Path) -> str:
    """What is said of a download that fails; nothing of it is left."""
    with pytest.raises(ConfigError) as caught:
        fetch(Archive("file.bin", url, (hashlib.md5(b"abcd").hexdigest(),)), root, Console())
    assert not [path for path in root.rglob("*") if path.is_file()]
    assert str(caught.value).isprintable() and url in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", REPLIES)
def test_whatever_a_server_says_is_one_line(tmp_path, kind):
    reply, said = REPLIES[kind]
    with replying(reply) as url:
        assert said in download(url, tmp_path)


@pytest.mark.parametrize("reply", [b"", OK, OK + b"Content-Length: 9\r\n\r\nabcd", CHUNKED + b"9\r\nabcd"])
def test_connections_that_break_or_fall_silent_are_one_line(tmp_path, monkeypatch, reply):
    with replying(reply, reset=True) as url:
        assert "cannot download" in download(url, tmp_path)
    monkeypatch.setattr(archives, "TIMEOUT_S", 0.2)
    with replying(reply, silent=True) as url:
        assert "timed out" in download(url, tmp_path)


def get(archive: Archive, root: Path) -> None:
    fetch(archive, root, Console())


def test_jobs_that_start_at_once_download_once(tmp_path, server):
    content = os.urandom(1 << 20)
    (tmp_path / "served" / "file.bin").write_bytes(content)
    archive = Archive("file.bin", f"{server}/file.bin", (formats.md5(tmp_path / "served" / "file.bin"),))
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=get, args=(archive, tmp_path / "root")) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    assert (tmp_path / "root" / "file.bin").read_bytes() == content
    assert CountingHandler.requests == ["/file.bin"]


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "root").write_text("a file where the folder should be")
    with pytest.raises(ConfigError, match=r"choose another data\.root"):
        archives.once(tmp_path / "root" / "set", lambda: None, Console())
