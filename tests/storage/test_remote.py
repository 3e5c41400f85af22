"""Web addresses: what a server says is told apart from a file that is not there."""

import http.server
import socket
import threading

import pytest

from jax_prompts.errors import ConfigError, RunError
from jax_prompts.prompts.prompt_file import load_prompt
from jax_prompts.prompts.store import PromptStore
from jax_prompts.storage import files


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers `/CODE` with that status; 301 leads to itself, 302 to nowhere, 307 to `/404`."""

    def do_GET(self):
        code = int(self.path.strip("/").partition("?")[0])
        self.send_response(code)
        if code in (301, 307):
            self.send_header("Location", self.path if code == 301 else "/404")
        self.send_header("Content-Length", "9")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"no prompt")

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{made.server_port}"
        made.shutdown()


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (404, ConfigError, "does not exist"),
        (410, ConfigError, "does not exist"),
        (307, ConfigError, "does not exist"),
        (500, RunError, "could not be read: http 500 Internal Server Error"),
        (503, RunError, "could not be read: http 503 Service Unavailable"),
        (403, RunError, "could not be read: http 403 Forbidden"),
        (301, RunError, "could not be read: TooManyRedirects"),
        (302, RunError, "could not be read: http 302 Found, to nowhere"),
        (200, RunError, "is not a whole prompt file"),
    ],
)
def test_what_a_server_says(server, code, kind, reason):
    url, shown = f"http://ann:secret@{server}/{code}?token=secret", f"http://***@{server}/{code}?***"
    with pytest.raises(kind) as caught:
        load_prompt(url)
    assert str(caught.value).startswith(f"{shown} {reason}")
    if code != 200:
        with pytest.raises(kind) as caught:
            PromptStore(url).list()
        assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_refused_connection(server):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/a"
        with pytest.raises(RunError, match="could not be read: Connect call failed"):
            load_prompt(url)
        for chained in (url, f"simplecache::{url}", f"filecache::{url}"):
            with pytest.raises(OSError, match="Cannot connect") as caught:
                files.read(chained, 9)
            assert not isinstance(caught.value, FileNotFoundError)


def test_a_cache_in_front_of_a_server_tells_what_the_server_says(server):
    for code, kind, reason in ((404, ConfigError, "does not exist"), (503, RunError, "http 503")):
        with pytest.raises(kind, match=reason):
            load_prompt(f"simplecache::http://{server}/{code}")


def test_an_address_that_can_only_be_read_says_so(server):
    with pytest.raises(OSError, match="cannot be changed from here"):
        files.remove(f"http://{server}/200")
