"""A server of files on this machine, for as long as a test lasts; it can be made to break them."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from verigrad.data.sources import RemoteFile


@dataclass
class Mirror:
    """Its address, and the names of the files that it was asked for."""

    address: str
    asked: list[str] = field(default_factory=list)


@contextmanager
def serving(files: Mapping[str, bytes], *, broken_off: int | None = None, gzip: bool = False) -> Iterator[Mirror]:
    """A mirror of these files, and of no others.

    Args:
        broken_off: send so many bytes of each and then end the connection.
        gzip: call what is sent gzip-encoded, as servers do that take .gz for an encoding.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            name = self.path.lstrip("/")
            mirror.asked.append(name)
            if name not in files:
                self.send_error(404, "Not Found")
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(files[name])))
            if gzip and "gzip" in self.headers.get("Accept-Encoding", ""):
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            self.wfile.write(files[name][:broken_off])

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is said."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    mirror = Mirror(f"http://127.0.0.1:{server.server_port}")
    thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield mirror
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def nobody() -> str:
    """An address on this machine at which nobody listens."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return f"http://127.0.0.1:{server.server_port}"


def described(name: str, content: bytes) -> RemoteFile:
    return RemoteFile(name=name, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def packed(files: Mapping[str, bytes]) -> bytes:
    """A .tar.gz of these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
