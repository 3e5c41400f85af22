"""Servers of buckets on loopback: one that speaks as Google's storage does, one as Amazon's, and what fails in front.

Google's comes with the extra `test`. Amazon's (`pip install s3fs "moto[server]"`) does not, for it does not go with the
versions that are pinned; tests are left out where a server is not installed.
"""

import contextlib
import http.client
import http.server
import json
import logging
import re
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request
import uuid

import fsspec
import pytest

ANYBODY = {
    "AWS_ACCESS_KEY_ID": "anybody",
    "AWS_SECRET_ACCESS_KEY": "anything",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def google_storage():
    """A `Proxy` of a server with Google's protocol, which keeps everything in memory."""
    emulator = pytest.importorskip(
        "gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed"
    )
    port = free_port()
    made = emulator.create_server("127.0.0.1", port, in_memory=True)
    made.start()
    try:
        with Proxy(port) as proxy:
            threading.Thread(target=proxy.serve_forever, daemon=True).start()
            yield proxy
            proxy.shutdown()
    finally:
        made.stop()


@contextlib.contextmanager
def amazon_storage():
    """Address of a server with Amazon's protocol."""
    moto = pytest.importorskip("moto.server", reason="moto[s3,server] is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer("127.0.0.1", free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def google_bucket(proxy, monkeypatch):
    """URL of a new bucket, which this process and those that it starts reach."""
    for variable, value in proxy.variables.items():
        monkeypatch.setenv(variable, value)
    name = f"bucket-{uuid.uuid4().hex}"
    headers = {"Content-Type": "application/json"}
    body = json.dumps({"name": name}).encode()
    urllib.request.urlopen(urllib.request.Request(f"{proxy.address}/storage/v1/b", body, headers)).close()
    forget()
    return f"gs://{name}"


def amazon_bucket(address, monkeypatch):
    """As `google_bucket`."""
    for variable, value in {**ANYBODY, "AWS_ENDPOINT_URL": address}.items():
        monkeypatch.setenv(variable, value)
    forget()
    name = f"bucket-{uuid.uuid4().hex}"
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}"


def forget():
    """Lets go of file systems that know other addresses."""
    for kind in ("gs", "s3"):
        with contextlib.suppress(ImportError):
            fsspec.get_filesystem_class(kind).clear_instance_cache()


class Proxy(http.server.ThreadingHTTPServer):
    """Passes requests on to the emulator, and fails as told.

    It keeps the conditions of writes, tells the version of what is read, and answers the end of an upload again when
    it is sent again, as Google's servers do and that does not.

    Attributes:
      written: how many requests were no readings.
      faults: function of method and path; what it returns is done in the place of the answer, or to it: a status,
        "gone" (no answer), "drop" (the request is served and the answer lost), "half" (half of the answer), or None.
    """

    daemon_threads = True

    def __init__(self, behind):
        super().__init__(("127.0.0.1", 0), _Passing)
        self.behind, self.written, self.faults = behind, 0, lambda method, path: None
        self.uploaded = {}  # answers to the ends of uploads in parts
        self.writing = threading.Lock()
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.variables = {
            "STORAGE_EMULATOR_HOST": self.address,
            "TENSORSTORE_GCS_HTTP_URL": self.address,
            "GOOGLE_AUTH_DISABLED": "true",
            "GCE_METADATA_HOST": "127.0.0.1:1",
            "NO_GCE_CHECK": "true",
        }

    def handle_error(self, *_):
        pass  # a client that has gone


class _Passing(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self):
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else self._chunks()
        self.server.written += self.command != "GET"
        fault = self.server.faults(self.command, self.path)
        if fault == "gone":
            self.close_connection = True
            return None
        if isinstance(fault, int):
            return self._answer(
                fault, {}, json.dumps({"error": {"code": fault, "message": "told to fail"}}).encode()
            )
        query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
        if wanted := query.get("ifGenerationMatch"):
            with self.server.writing:
                if self._generation(query, body) != wanted[0]:
                    error = json.dumps({"error": {"code": 412, "message": "conditionNotMet"}}).encode()
                    return self._answer(412, {"Content-Type": "application/json"}, error)
                answer = self._pass(body)
        else:
            answer = self._pass(body)
        if fault == "drop":
            self.close_connection = True
            return None
        return self._answer(*answer, half=fault == "half")

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = handle_any

    def _chunks(self):
        body = b""
        while self.headers.get("Transfer-Encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
            body += self.rfile.read(size)
            self.rfile.readline()
        return body

    def _pass(self, body):
        upload = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query).get("upload_id", [None])[0]
        if upload in self.server.uploaded:
            return self.server.uploaded[upload]
        answer = self._passed(body)
        if upload is not None and answer[0] in (200, 201):
            self.server.uploaded[upload] = answer
        return answer

    def _passed(self, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.behind)
        kept = ("connection", "transfer-encoding", "content-length", "accept-encoding")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in kept}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        found = dict(answer.getheaders())
        if self.command == "GET" and "alt=media" in self.path and answer.status < 300:
            found["x-goog-generation"] = self._generation({}, b"")
        return answer.status, found, answer.read()

    def _answer(self, status, headers, content, half=False):
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if half else content)
        if half:
            self.close_connection = True

    def _generation(self, query, body):
        """The version of the object that a request is about, "0" where there is none."""
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        bucket, key = re.search(r"/b/([^/]+)/o/?(.*)", path).groups()
        key = key or query.get("name", re.findall(rb'"name": "([^"]+)"', body))[0]
        key = key if isinstance(key, str) else key.decode()
        asked = f"http://127.0.0.1:{self.server.behind}/storage/v1/b/{bucket}/o/{urllib.parse.quote(key, safe='')}"
        try:
            return json.load(urllib.request.urlopen(asked))["generation"]
        except urllib.error.HTTPError:
            return "0"

    def log_message(self, *_):
        pass
