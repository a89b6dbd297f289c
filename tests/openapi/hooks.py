"""What schemathesis cannot know: which ids there are. Most of its requests get some in place of what it
made up, so that they reach more than a 404; things that it put away are made anew."""

import itertools
import json
import os
import threading
import urllib.error
import urllib.request

import schemathesis

URL = os.environ["BELLPULL_URL"]
KEY = os.environ["BELLPULL_API_KEY"]
# Requests for which one thing stands.
USES = 15

lock = threading.RLock()
counts = itertools.count()


def call(method, path, value=None, headers=None, data=None):
    data = json.dumps(value).encode() if value is not None else data
    headers = {"authorization": f"Bearer {KEY}", **(headers or {})}
    request = urllib.request.Request(URL + path, data=data, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def post(path, value):
    return call("POST", path, value)


def agent():
    return post("/v1/agents", {"name": "fuzzed", "model": "rehearsal"})["id"]


def environment():
    return post("/v1/environments", {"name": f"fuzzed {next(counts)}"})["id"]


def session():
    said = {"type": "user.message", "content": "ring"}
    return post("/v1/sessions", {
        "agent": agent(), "environment_id": environment(), "initial_events": [said]})["id"]


def vault():
    return post("/v1/vaults", {"display_name": "fuzzed"})["id"]


def file():
    body = ('--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n'
            "Content-Type: text/plain\r\n\r\nding\r\n--x--\r\n").encode()
    headers = {"content-type": "multipart/form-data; boundary=x"}
    return call("POST", "/v1/files", headers=headers, data=body)["id"]


def deployment():
    return post("/v1/deployments", {
        "name": "fuzzed", "agent": agent(), "environment_id": environment(),
        "initial_events": [{"type": "user.message", "content": "ring"}]})["id"]


def run():
    return post(f"/v1/deployments/{deployment()}/run", {})["id"]


def source():
    name = f"fuzzed-{next(counts)}"
    callback = {"url": "https://example.com/results"}
    post("/v1/sources", {
        "name": name, "preset": "bearer", "secret": "a-token-of-the-fuzzer", "callback": callback})
    return name


def delivery():
    name = source()
    headers = {"authorization": "Bearer a-token-of-the-fuzzer"}
    return call("POST", f"/api/webhook/{name}", {"n": next(counts)}, headers)["delivery_id"]


def key():
    return post("/v1/api_keys", {"name": f"fuzzed {next(counts)}", "scopes": ["read"]})["id"]


def secret():
    name = f"FUZZED_{next(counts)}"
    post("/v1/secrets", {"name": name, "generate": True})
    return name


def message():
    return post(f"/v1/sources/{source()}/callback/test", {})["id"]


MAKERS = {
    "agents": agent, "environments": environment, "sessions": session, "vaults": vault,
    "files": file, "deployments": deployment, "deployment_runs": run, "sources": source,
    "deliveries": delivery, "api_keys": key, "secrets": secret, "outbox": message,
    "budgets": agent, "webhook": source,
}
known = {}


def live(kind):
    """One that is there, most likely."""
    with lock:
        id, left = known.get(kind, (None, 0))
        if left == 0:
            id, left = MAKERS[kind](), USES
        known[kind] = id, left - 1
        return id


def inner(name, outer):
    """Something within a session or a vault."""
    if name == "thread":
        return outer.replace("sesn_", "sthr_")
    if name == "resource":
        return post(f"/v1/sessions/{outer}/resources", {"type": "file", "file_id": file()})["id"]
    auth = {"type": "static_bearer", "token": "t", "mcp_server_url": f"https://{next(counts)}.example"}
    return post(f"/v1/vaults/{outer}/credentials", {"auth": auth})["id"]


def is_kept(value):
    """Some of what was made up is sent as it is; the same each time."""
    return sum(str(value).encode()) % 5 == 0


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    if not path_parameters or any(is_kept(it) for it in path_parameters.values()):
        return path_parameters
    parts = context.operation.path.strip("/").split("/")
    names = {}
    try:
        for before, part in zip(parts, parts[1:]):
            name = part.strip("{}")
            if part.startswith("{") and name in path_parameters:
                if names:
                    names[name] = inner(name, next(iter(names.values())))
                elif before in MAKERS:
                    names[name] = live(before)
    except urllib.error.HTTPError:
        # What it stands in was put away meanwhile.
        pass
    return {**path_parameters, **names}


REFERENCES = {
    "agent": "agents", "agent_id": "agents", "environment_id": "environments", "file_id": "files",
    "session_id": "sessions", "scope_id": "sessions", "deployment_id": "deployments",
    "source": "sources",
}


def referring(given):
    """With ids that are there in the place of texts that are to be ids."""
    if isinstance(given, list):
        return [referring(it) for it in given]
    if not isinstance(given, dict):
        return given
    mapped = {key: referring(it) for key, it in given.items()}
    for name, kind in REFERENCES.items():
        if isinstance(mapped.get(name), str) and not is_kept(mapped[name]):
            mapped[name] = live(kind)
    return mapped


@schemathesis.hook
def map_body(context, body):
    return referring(body)


@schemathesis.hook
def map_query(context, query):
    return referring(query) if query else query
