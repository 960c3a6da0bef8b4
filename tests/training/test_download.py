"""Fetching a data set: from a server on this machine that does what real ones do on bad days."""

import contextlib
import hashlib
import http.server
import socket
import threading
from dataclasses import replace

import pytest

from minids.errors import MinidsError
from minids.training import download

CONTENT = b"".join(b"line %d of the play\n" % i for i in range(20_000))


class Server(http.server.ThreadingHTTPServer):
    """Sends ``content`` ``repeat`` times and counts them in ``sent``; closes after ``cut_after`` bytes of it."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cut_after = CONTENT, None
        self.repeat, self.sent = 1, 0
        self.asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/input.txt"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.asked += 1
        self.send_response(200)
        if self.server.repeat == 1:
            self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client may have read enough
            for _ in range(self.server.repeat):
                self.wfile.write(self.server.content[: self.server.cut_after])
                self.server.sent += 1

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, a known data set ``play``, and no proxy between the test and its server."""
    for variable in ("MINIDS_DATA", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.setattr(download.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    monkeypatch.setattr(download, "TIMEOUT", 5.0)
    play = download.Dataset(
        name="play",
        filename="play.txt",
        aliases=("input.txt",),
        url="http://127.0.0.1:9/never-asked",
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        about="a play",
    )
    monkeypatch.setattr(download, "DATASETS", {"play": play})
    return tmp_path / "cache" / "minids"


def test_a_file_is_fetched_once(server, cache):
    assert download.fetch("play", server.url) == cache / "play.txt"
    assert download.fetch("play", server.url).read_bytes() == CONTENT
    assert server.asked == 1, "the second call asked the server again"
    assert [path.name for path in cache.iterdir()] == ["play.txt"]


def test_a_cut_connection_leaves_nothing_and_the_next_call_begins_anew(server, cache):
    server.cut_after = 150_000
    with pytest.raises(MinidsError, match="cannot be fetched: the connection was cut before the end"):
        download.fetch("play", server.url)
    assert list(cache.iterdir()) == []
    server.cut_after = None
    assert download.fetch("play", server.url).read_bytes() == CONTENT


def test_an_altered_file_is_never_used(server, cache):
    server.content = CONTENT[:-1] + b"?"
    with pytest.raises(MinidsError, match="wrong SHA-256") as error:
        download.fetch("play", server.url)
    assert server.url in str(error.value) and str(cache / "play.txt") in str(error.value) and "MINIDS_DATA" in str(error.value)
    assert "\n" not in str(error.value)
    assert list(cache.iterdir()) == [], "something of the altered file was kept"


def test_a_file_without_end_is_not_read_to_its_end(server, cache):
    server.repeat = 200
    with pytest.raises(MinidsError, match="wrong SHA-256"):
        download.fetch("play", server.url)
    assert list(cache.iterdir()) == []
    assert server.sent < 100, "all of a file far too long was read"


def test_a_file_that_ends_early_is_refused(server, cache):
    server.content = CONTENT[:5000]
    with pytest.raises(MinidsError, match="cannot be fetched"):
        download.fetch("play", server.url)
    assert server.asked == 1 and list(cache.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_fetched_again(server, cache):
    cache.mkdir(parents=True)
    (cache / "play.txt").write_bytes(CONTENT[:-1])
    assert download.fetch("play", server.url).read_bytes() == CONTENT


def test_a_failed_download_leaves_the_damaged_file_as_it_was(server, cache):
    cache.mkdir(parents=True)
    (cache / "play.txt").write_bytes(CONTENT[:-1])
    server.cut_after = 10
    with pytest.raises(MinidsError, match="cannot be fetched"):
        download.fetch("play", server.url)
    assert [(path.name, path.read_bytes()) for path in cache.iterdir()] == [("play.txt", CONTENT[:-1])]


def test_a_refused_connection_is_said_in_one_line(cache):
    with socket.socket() as free:  # bound and not listening: nothing answers there, and nobody else can
        free.bind(("127.0.0.1", 0))
        with pytest.raises(MinidsError, match="cannot be fetched") as error:
            download.fetch("play", f"http://127.0.0.1:{free.getsockname()[1]}/input.txt")
    assert "\n" not in str(error.value) and "MINIDS_DATA" in str(error.value)
    assert list(cache.iterdir()) == []


def test_an_address_that_is_none_is_said(cache):
    with pytest.raises(MinidsError, match="unknown url type"):
        download.fetch("play", "nowhere")


@pytest.mark.parametrize("name", ["play.txt", "input.txt"])
def test_a_folder_of_the_user_needs_no_network(cache, tmp_path, monkeypatch, name):
    monkeypatch.setenv("MINIDS_DATA", str(tmp_path))
    (tmp_path / name).write_bytes(CONTENT)
    assert download.fetch("play") == tmp_path / name
    assert not cache.exists(), "a cache folder was made though none was needed"


def test_a_wrong_file_in_the_folder_of_the_user_is_not_used(server, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("MINIDS_DATA", str(tmp_path))
    (tmp_path / "play.txt").write_bytes(CONTENT[::-1])
    assert download.fetch("play", server.url) == cache / "play.txt"


def test_unknown_names_are_refused(cache):
    with pytest.raises(MinidsError, match="there is play"):
        download.fetch("novel")


def test_the_list_says_what_is_here(server, cache):
    (play,) = download.DATASETS.values()
    assert download.find(play) is None and "not here yet: minids data fetch play" in str(play)
    download.fetch("play", server.url)
    assert download.find(play) == cache / "play.txt" and f"{len(CONTENT):,} bytes" in str(play)


def test_without_a_home_the_cache_is_a_folder_for_temporary_files(server, cache, tmp_path, monkeypatch):
    def no_home(*_, **__):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr("platformdirs.user_cache_dir", no_home)
    assert download.fetch("play", server.url) == tmp_path / "temporary" / "minids" / "play.txt"


def test_a_relative_folder_for_caches_does_not_count(server, cache, tmp_path, monkeypatch):
    """It would move with the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: "relative/minids")
    assert download.fetch("play", server.url) == tmp_path / "temporary" / "minids" / "play.txt"


def test_a_cache_that_cannot_be_made_gives_way_to_the_next(server, cache, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert download.fetch("play", server.url) == tmp_path / "temporary" / "minids" / "play.txt"
    monkeypatch.setattr(download, "writable", lambda folder: False)
    monkeypatch.setattr(download, "DATASETS", {"play": replace(download.DATASETS["play"], size=1)})
    with pytest.raises(MinidsError, match="XDG_CACHE_HOME"):
        download.fetch("play", server.url)
