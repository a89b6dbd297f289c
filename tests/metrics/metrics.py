"""The numbers of a server that worked, read by a strict parser that shares no code with it."""

import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families

TOKEN = "metrics-test-token-0123456789"
PATIENCE_SECONDS = 60
N_RINGS = 20
# A name that no label can hold as it is.
MODEL = 'openai/"quoted"\\back'
CONFIG = f"""
[webhooks.shop]
preset = "bearer"
secret = "{TOKEN}"
[webhooks.broken]
preset = "bearer"
secret = "{TOKEN}"
agent = "nobody"
[models]
retries_max = 0
"""


class Server:
    def __init__(self, directory):
        self.data = os.path.join(directory, "data")
        config = os.path.join(directory, "bellpull.toml")
        with open(config, "w") as file:
            file.write(CONFIG)
        # Nothing listens there: every request to it fails at once.
        environment = {**os.environ, "OPENAI_BASE_URL": "http://127.0.0.1:1"}
        self.process = subprocess.Popen(
            [
                os.environ["BELLPULL_TEST_BINARY"], "serve", "--listen", "127.0.0.1:0",
                "--config", config, "--data-dir", self.data,
            ],
            env=environment, stderr=subprocess.PIPE, text=True,
        )
        self.url = next(
            "http://" + found[1]
            for line in self.process.stderr
            if (found := re.search(r"is listening.*address=(\S+)", line))
        )
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        with open(os.path.join(self.data, "admin.key")) as file:
            self.key = file.read().strip()

    def call(self, path, token=None, body=None):
        """Status, type and text of an answer."""
        request = urllib.request.Request(self.url + path, data=body and body.encode())
        if token:
            request.add_header("authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.headers["content-type"], response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers["content-type"], error.read().decode()

    def get(self, path):
        status, _, text = self.call(path, self.key)
        assert status == 200, (path, status, text)
        return json.loads(text)

    def post(self, path, value):
        status, _, text = self.call(path, self.key, json.dumps(value))
        assert status == 200, (path, status, text)
        return json.loads(text)

    def scrape(self):
        """Families by name, after the parser has accepted the whole."""
        status, kind, text = self.call("/metrics", self.key)
        assert status == 200, (status, text)
        assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8", kind
        assert TOKEN not in text and self.key not in text
        return {family.name: family for family in text_string_to_metric_families(text)}


def until(what, ask):
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if answer := ask():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {PATIENCE_SECONDS} s: {what}")


def value(families, family, sample, **labels):
    found = [it.value for it in families[family].samples if it.name == sample and it.labels == labels]
    assert len(found) == 1, (sample, labels, families[family].samples)
    return found[0]


def n_turns(families):
    return sum(it.value for it in families["bellpull_turns"].samples)


def work(server):
    """Deliveries that succeed, one that is held, callers that are turned away, a model that fails."""
    for n in range(N_RINGS):
        status, _, text = server.call("/api/webhook/shop", TOKEN, json.dumps({"n": n}))
        assert status == 202, (status, text)
    assert server.call("/api/webhook/broken", TOKEN, "{}")[0] == 202
    assert server.call("/api/webhook/made-up", TOKEN, "{}")[0] == 401
    agent = server.post("/v1/agents", {"name": "odd", "model": MODEL})
    name = f"WEBHOOK_{agent['id']}_SECRET"
    server.post("/v1/secrets", {"name": name, "value": TOKEN})
    status, _, text = server.call(f"/api/agents/{agent['id']}/webhook", TOKEN, "{}")
    assert status == 202, (status, text)

    def settled(outcome, n):
        return len(server.get(f"/v1/deliveries?outcome={outcome}&limit=100")["data"]) == n

    until("all is delivered", lambda: settled("succeeded", N_RINGS) and settled("failed", 1))
    # A turn is counted when it is committed: whoever reads the deliveries may be the first to know.
    until("all turns are counted", lambda: n_turns(server.scrape()) == N_RINGS + 1)
    return agent["id"]


def check(server, agent):
    families = server.scrape()
    for family in families.values():
        assert family.documentation and family.type != "unknown", family
        if family.type == "histogram":
            assert family.unit in ("seconds", ""), family

    def requests(**labels):
        sample = "bellpull_webhook_requests_total"
        return value(families, "bellpull_webhook_requests", sample, **labels)

    assert requests(kind="named", source="shop", result="accepted") == N_RINGS
    assert requests(kind="named", source="broken", result="held") == 1
    assert requests(kind="named", source="(unknown)", result="refused") == 1
    assert requests(kind="agent", source=agent, result="accepted") == 1
    turns = {it.labels["result"]: it.value for it in families["bellpull_turns"].samples}
    assert turns == {"end_turn": N_RINGS, "retries_exhausted": 1}, turns
    asked = families["bellpull_model_requests"].samples
    asked = {(it.labels["model"], it.labels["result"]): it.value for it in asked}
    assert asked[MODEL, "model_request_failed_error"] == 1, asked
    assert asked["rehearsal", "ok"] >= N_RINGS, asked
    for name, n in [
        ("bellpull_accept_duration_seconds", N_RINGS + 2),
        ("bellpull_delivery_wait_seconds", N_RINGS + 1),
        ("bellpull_turn_duration_seconds", N_RINGS + 1),
    ]:
        assert value(families, name, f"{name}_count") == n, families[name].samples
    oldest = "bellpull_oldest_waiting_seconds"
    assert value(families, oldest, oldest, kind="named", source="shop") == 0
    (build,) = families["bellpull_build"].samples
    assert build.name == "bellpull_build_info" and build.labels["version"], build
    started = value(families, "process_start_time_seconds", "process_start_time_seconds")
    assert abs(time.time() - started) < PATIENCE_SECONDS * 2, started
    return len(families)


def main():
    with tempfile.TemporaryDirectory(prefix="bellpull-metrics-") as directory:
        server = Server(directory)
        try:
            assert server.call("/metrics")[0] == 401
            # A server that has done nothing yet is read as well.
            server.scrape()
            n_families = check(server, work(server))
        finally:
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(timeout=PATIENCE_SECONDS)
        print(f"{n_families} families of metrics, all read by the reference parser")


main()
