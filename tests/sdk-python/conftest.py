"""One server for all tests, with a scripted model provider behind it; clients of the official SDK."""

import json
import os
import re
import signal
import subprocess
import threading
import time
import urllib.request

import anthropic
import pytest

from contract import Contract
from provider import Provider

PATIENCE_SECONDS = 60
# The generation before has no such arguments and types: what it cannot say is tested with the newest.
IS_NEW = int(anthropic.__version__.split(".")[0]) >= 2


def evaluated(event):
    """By which policy a call was decided: a field that not every generation of the SDK has a type for."""
    evaluation = event.to_dict(mode="json").get("evaluation")
    return evaluation and evaluation["type"]


new_only = pytest.mark.skipif(not IS_NEW, reason="this generation of the SDK does not know it")
CONFIG = """
[models]
retry_first_ms = 1
[models.prices."claude-sonnet-5-5"]
input_per_mtok = 3
output_per_mtok = "15"
[mcp]
allowed_private_hosts = ["127.0.0.1"]
tools_seconds = 0
[mcp.servers.tiny]
command = ["/usr/bin/env", "python3", "-c", """ + json.dumps(open(os.path.join(os.path.dirname(__file__), "tiny_mcp.py")).read()) + "]\n"


class Server:
    def __init__(self, directory, provider):
        self.directory = directory
        self.data = os.path.join(directory, "data")
        config = os.path.join(directory, "bellpull.toml")
        with open(config, "w") as file:
            file.write(CONFIG)
        environment = {"PATH": os.environ["PATH"], "ANTHROPIC_BASE_URL": provider.url,
                       "ANTHROPIC_API_KEY": "sdk-test-key"}
        self.process = subprocess.Popen(
            [os.environ["BELLPULL_TEST_BINARY"], "serve", "--listen", "127.0.0.1:0",
             "--config", config, "--data-dir", self.data],
            env=environment, stderr=subprocess.PIPE, text=True,
        )
        self.log = []
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"is listening.*address=(\S+)", line):
                self.url = "http://" + found[1]
                break
        else:
            raise AssertionError("".join(self.log))
        threading.Thread(target=self._read, daemon=True).start()
        until("the server is ready", lambda: self._is_ready())
        with open(os.path.join(self.data, "admin.key")) as file:
            self.key = file.read().strip()

    def _read(self):
        self.log.extend(self.process.stderr)

    def _is_ready(self):
        try:
            return urllib.request.urlopen(self.url + "/readyz", timeout=5).status == 200
        except OSError:
            return False

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE_SECONDS) == 0, "".join(self.log[-50:])


def until(what, ask):
    """What `ask` answers as soon as it is true; an error after a while."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if answer := ask():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"never came to be: {what}")


@pytest.fixture(scope="session")
def shared_provider():
    return Provider()


@pytest.fixture
def provider(shared_provider):
    """The model provider, with nothing left of the test before."""
    shared_provider.forget()
    return shared_provider


@pytest.fixture(scope="session")
def server(tmp_path_factory, shared_provider):
    server = Server(str(tmp_path_factory.mktemp("bellpull")), shared_provider)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def checked(server):
    """What makes a client's transport look at every answer."""
    contract = Contract(server.url)
    yield lambda: anthropic.DefaultHttpxClient(event_hooks={"response": [contract.check]})


@pytest.fixture(scope="session")
def client(server, checked):
    return anthropic.Anthropic(base_url=server.url, api_key=server.key, http_client=checked())


@pytest.fixture
def impatient(server, checked):
    """A client that never tries again, for the errors."""
    return anthropic.Anthropic(
        base_url=server.url, api_key=server.key, max_retries=0, http_client=checked())


@pytest.fixture
def agent(client):
    return client.beta.agents.create(
        name="concierge", model="claude-sonnet-5-5", tools=[{"type": "agent_toolset_20260401"}])


@pytest.fixture(scope="session")
def environment(client):
    return client.beta.environments.create(name="shared by the tests")


def run(client, session, *events):
    """Sends the events and gives those of the stream until the session rests."""
    with client.beta.sessions.events.stream(session.id) as stream:
        client.beta.sessions.events.send(session.id, events=list(events))
        seen = []
        for event in stream:
            seen.append(event)
            if event.type in ("session.status_idle", "session.status_terminated"):
                return seen


def message(said):
    return {"type": "user.message", "content": [{"type": "text", "text": said}]}
