import json
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from raycrp.train import spot
from raycrp.train.spot import AwsNotices, GcpNotices, drain_this_node, main, watch

TOKEN = "secret"
ACTION = "/latest/meta-data/spot/instance-action"
PREEMPTED = "/computeMetadata/v1/instance/preempted"


class Metadata(BaseHTTPRequestHandler):
    """Answers as the metadata services of AWS (version 2) and GCP do."""

    def do_PUT(self):
        is_right = "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
        self.answer(200 if is_right else 400, TOKEN)

    def do_GET(self):
        if self.path == ACTION and self.headers["X-aws-ec2-metadata-token"] != TOKEN:
            return self.answer(401, "")
        if self.path == PREEMPTED and self.headers["Metadata-Flavor"] != "Google":
            return self.answer(403, "")
        text = self.server.notices.get(self.path)
        return self.answer(404, "") if text is None else self.answer(200, text)

    def answer(self, status, text):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def service():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    server.notices = {PREEMPTED: "FALSE"}
    server.host = f"127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def aws_notice(seconds):
    ends = datetime.now(UTC) + timedelta(seconds=seconds)
    return json.dumps({"action": "terminate", "time": ends.strftime("%Y-%m-%dT%H:%M:%SZ")})


def test_aws_notice_tells_the_seconds_left(service):
    assert AwsNotices(service.host).seconds_left() is None
    service.notices[ACTION] = aws_notice(120)
    assert AwsNotices(service.host).seconds_left() == pytest.approx(120, abs=3)
    service.notices[ACTION] = aws_notice(-5)
    assert AwsNotices(service.host).seconds_left() == 0


def test_gcp_notice(service):
    assert GcpNotices(service.host).seconds_left() is None
    service.notices[PREEMPTED] = "TRUE"
    # Half a minute ahead, of which up to five seconds went by since the look before.
    assert GcpNotices(service.host).seconds_left() == 25


@pytest.mark.parametrize("source", [AwsNotices, GcpNotices])
def test_a_service_that_does_not_answer_is_no_notice(source):
    assert source("127.0.0.1:9").seconds_left() is None


def test_watching_drains_once_when_the_notice_comes(service):
    drained = []
    threading.Timer(0.15, service.notices.update, [{PREEMPTED: "TRUE"}]).start()
    watch(GcpNotices(service.host), drain=drained.append, poll_s=0.02)
    assert drained == [25]


def test_a_drain_that_ray_does_not_take_is_asked_for_again(service):
    asked = []

    def drain(seconds):
        asked.append(seconds)
        if len(asked) < 3:
            raise subprocess.CalledProcessError(1, "ray drain-node")

    service.notices[PREEMPTED] = "TRUE"
    watch(GcpNotices(service.host), drain=drain, poll_s=0.02)
    assert asked == [25, 25, 25]


@pytest.mark.parametrize(("seconds", "told"), [(119.6, "114"), (25.0, "20"), (3.0, "1")])
def test_ray_is_told_a_time_before_the_end(monkeypatch, seconds, told):
    commands = []
    monkeypatch.setattr(spot.subprocess, "run", lambda command, check: commands.append(command))
    drain_this_node(seconds)
    assert commands[0][:2] == ["ray", "drain-node"]
    assert commands[0][-2:] == ["--deadline-remaining-seconds", told]


def test_an_unknown_cloud_is_refused(capsys):
    assert main(["azure"]) == 2
    assert "aws,gcp" in capsys.readouterr().err
