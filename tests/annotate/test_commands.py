import contextlib
import http.server
import json
import signal
import socket
import socketserver
import threading

import pytest

from annotation import CLASSES, make_run, open_session, picture
from ripu.annotate import __main__ as annotate
from ripu.annotate.errors import AnnotationError
from ripu.annotate.formats import FORMATS
from ripu.annotate.images import Images
from ripu.annotate.running_server import ask_server
from ripu.io import signals


class Other(http.server.BaseHTTPRequestHandler):
    """A server that has the port of a server of the page that ended without a word."""

    def do_GET(self):
        self.server.heard.append(self.headers.get("Authorization"))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def other():
    with http.server.HTTPServer(("127.0.0.1", 0), Other) as server:
        server.heard = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def record(run, port):
    folder = run / "annotation"
    folder.mkdir(exist_ok=True)
    (folder / "server.json").write_text(json.dumps({"url": f"http://127.0.0.1:{port}/", "token": "key"}))


def test_the_address_is_open_as_soon_as_it_is_printed(tmp_path, monkeypatch, capsys):
    from ripu.annotate import server

    run, reached = make_run(tmp_path), []
    session = open_session(run)
    images = Images(session.store, picture)
    monkeypatch.setattr(annotate, "_own_session", lambda arguments: contextlib.nullcontext((session, images)))

    def before_it_serves(self):
        port = int(capsys.readouterr().out.split("127.0.0.1:")[1].split("/")[0])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            reached.append(client.getpeername()[1] == port)

    monkeypatch.setattr(server.Server, "run", before_it_serves)
    assert annotate.main([str(run)]) == 0
    assert reached == [True]


@pytest.mark.parametrize(
    ("status", "content"),
    [(404, b"<html>"), (503, b""), (200, b"<html>"), (200, b"[]"), (401, b'{"error": "key"}'), (404, b"\xff")],
)
def test_another_server_on_the_port_is_no_server_of_the_run(other, tmp_path, status, content):
    other.status, other.content = status, content
    record(tmp_path, other.server_port)
    assert ask_server(tmp_path, "/api/stats") is None
    assert other.heard == ["Bearer key"]


def test_a_refusal_of_the_server_is_a_sentence(other, tmp_path):
    other.status, other.content = 423, b'{"error": "round 0 is closed"}'
    record(tmp_path, other.server_port)
    with pytest.raises(AnnotationError, match="round 0 is closed"):
        ask_server(tmp_path, "/api/stats")


def test_a_proxy_never_sees_the_key(other, tmp_path, monkeypatch):
    other.status, other.content = 503, b"<html>"
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{other.server_port}")
    record(tmp_path, 1)
    assert ask_server(tmp_path, "/api/stats") is None
    assert other.heard == []


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="has no Unix sockets")
def test_a_server_on_a_socket_is_asked_too(tmp_path):
    class OnSocket(socketserver.UnixStreamServer):
        heard, status, content = [], 200, b'{"closed": true}'

    class Local(Other):
        def address_string(self):
            return "socket"

    path = tmp_path / "page.sock"
    with OnSocket(str(path), Local) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (tmp_path / "annotation").mkdir()
        about = {"url": f"socket {path}", "socket": str(path), "token": "key"}
        (tmp_path / "annotation" / "server.json").write_text(json.dumps(about))
        assert ask_server(tmp_path, "/api/stats") == {"closed": True}
        server.shutdown()
    path.unlink()
    assert ask_server(tmp_path, "/api/stats") is None


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_command_ends_with_the_status_of_shells(tmp_path, monkeypatch, number, status):
    def stopped(arguments):
        signals.request_stop(number)
        raise signals.Terminated

    monkeypatch.setattr(signals, "_requested", [])
    monkeypatch.setattr(annotate, "_status", stopped)
    assert annotate.main([str(tmp_path), "status"]) == status


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose configuration is not read."""

    def opened(run, data_root):
        session = open_session(run)
        return session, Images(session.store, picture)

    monkeypatch.setattr(annotate, "open_session", opened)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    return str(make_run(tmp_path / "run", per_image=2))


def test_an_import_counts_what_the_file_and_the_run_leave_out(run, tmp_path, capsys):
    rows = ("0-0-0,roof", "0-0-1,unsure", "0-1-0,road", "0-1-0,sky", "0-1-1,? road road road road road road road sky")
    (tmp_path / "answers.csv").write_text("\n".join(("qid,labels", *rows, "0-0-2,road", "9-0-0,road")))
    (tmp_path / "again.csv").write_text("qid,labels\n0-0-0,sky\n0-1-1,road\n0-2-0,void\n")
    assert annotate.main([run, "import", "bundle", str(tmp_path / "answers.csv")]) == 0
    assert capsys.readouterr().out == (
        f"{tmp_path / 'answers.csv'}: 2 questions answered, 0 already known, 1 incomplete; 0 pixels that were not "
        "asked about are left out\nother answers exist (conflicts): 1: 0-1-0\nunknown questions: 2: 0-0-2, 9-0-0\n"
    )
    assert annotate.main([run, "--as", "ben", "import", "bundle", str(tmp_path / "again.csv")]) == 0
    assert capsys.readouterr().out.endswith("conflicts): 2: 0-0-0, 0-1-1\n")
    assert annotate.main([run, "status"]) == 0
    assert "round 1: open; 1 of 6 questions answered, 1 unsure, 2 in conflict, 2 open" in capsys.readouterr().out


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_exported_is_known_when_it_is_imported(run, tmp_path, capsys, name):
    rows = (f"0-{image}-{pick},{CLASSES[pick]}" for image in range(3) for pick in range(2))
    (tmp_path / "answers.csv").write_text("\n".join(("qid,labels", *rows)))
    assert annotate.main([run, "import", "bundle", str(tmp_path / "answers.csv")]) == 0
    assert annotate.main([run, "export", name, str(tmp_path / "out")]) == 0
    assert annotate.main([run, "import", name, str(tmp_path / "out")]) == 0
    first, exported, again = capsys.readouterr().out.splitlines()
    assert ": 6 questions answered, 0 already known, 0 incomplete; 0 pixels" in first
    assert exported == f"{tmp_path / 'out'}: 6 questions"
    assert ": 0 questions answered, 6 already known, 0 incomplete; 0 pixels" in again
