import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import ray

from raycrp.errors import ClusterError
from raycrp.submit.client import auth_headers, connect_to_jobs, job_address

VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch, tmp_path):
    for name in (*VARIABLES, "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def serve():
    """A server on loopback that answers every request with one status and body."""
    servers = []

    def _serve(status, body):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *arguments):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield _serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        (None, {}, "http://127.0.0.1:8265"),
        (None, {"RAY_ADDRESS": "10.0.0.1:6379"}, "http://127.0.0.1:8265"),
        (None, {"RAY_ADDRESS": "http://head:8265/"}, "http://head:8265"),
        (None, {"RAY_API_SERVER_ADDRESS": "head:8265"}, "http://head:8265"),
        (
            None,
            {"RAY_API_SERVER_ADDRESS": "http://a:1", "RAY_ADDRESS": "http://b:2"},
            "http://a:1",
        ),
        ("https://given:443", {"RAY_API_SERVER_ADDRESS": "http://a:1"}, "https://given:443"),
        ("given:8265", {"RAY_ADDRESS": "http://b:2"}, "http://given:8265"),
    ],
)
def test_the_address_given_wins_over_the_environment(given, environment, expected, monkeypatch):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert job_address(given) == expected


class TestToken:
    def test_none_is_sent_where_there_is_none(self):
        assert auth_headers() == {}

    def test_rays_order_is_kept(self, monkeypatch, tmp_path):
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("home\n")
        assert auth_headers() == {"Authorization": "Bearer home"}
        (tmp_path / "named").write_text("named")
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "named"))
        assert auth_headers() == {"Authorization": "Bearer named"}
        monkeypatch.setenv("RAY_AUTH_TOKEN", "direct")
        assert auth_headers() == {"Authorization": "Bearer direct"}
        monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
        assert auth_headers() == {}

    @pytest.mark.parametrize("content", [None, "", "  \n"])
    def test_a_named_file_without_a_token_is_an_error(self, content, monkeypatch, tmp_path):
        path = tmp_path / "named"
        if content is not None:
            path.write_text(content)
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
        with pytest.raises(ClusterError, match="holds no token"):
            auth_headers()


class TestConnect:
    def test_nothing_listening_is_said_at_once(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ClusterError, match=f"no cluster at {address}: Connection refused"):
            connect_to_jobs(address)

    @pytest.mark.parametrize("address", ["ray://head:10001", "http://", "http://head:port"])
    def test_another_kind_of_address_is_refused(self, address):
        with pytest.raises(ClusterError, match="is no address of a job server"):
            connect_to_jobs(address)

    def test_both_versions_are_named_where_they_differ(self, serve):
        address = serve(200, json.dumps({"version": "4", "ray_version": "2.40.0"}))
        with pytest.raises(ClusterError) as caught:
            connect_to_jobs(address)
        assert "runs Ray 2.40.0, this machine Ray " + ray.__version__ in str(caught.value)

    def test_the_same_version_connects_to_the_address_given(self, serve, monkeypatch):
        address = serve(200, json.dumps({"version": "4", "ray_version": ray.__version__}))
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://elsewhere:1")
        assert connect_to_jobs(address).get_address() == address

    @pytest.mark.parametrize(("status", "body"), [(404, ""), (500, "oops"), (200, "<html>")])
    def test_a_server_that_is_not_rays_is_named(self, serve, status, body):
        address = serve(status, body)
        with pytest.raises(ClusterError, match=f"no Ray job server answers at {address}"):
            connect_to_jobs(address)

    @pytest.mark.parametrize(
        ("status", "message"), [(401, "none was found here"), (403, "refuses the token")]
    )
    def test_a_refused_token_is_told_from_a_missing_one(self, serve, status, message):
        with pytest.raises(ClusterError, match=message):
            connect_to_jobs(serve(status, "no"))
