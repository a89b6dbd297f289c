"""Holds what a client of the SDK sends and gets against the document of the API that the server has."""

import json
import urllib.request

import jsonschema


class Contract:
    def __init__(self, url):
        with urllib.request.urlopen(url + "/openapi.json", timeout=10) as response:
            document = json.load(response)
        self.schemas = {"components": document["components"]}
        self.paths = [(path.split("/"), item) for path, item in document["paths"].items()]
        self.validators = {}

    def operation(self, method, path):
        parts = path.split("/")
        for known, item in self.paths:
            fits = len(known) == len(parts) and all(
                a == b or a.startswith("{") for a, b in zip(known, parts))
            if fits and method.lower() in item:
                return "/".join(known), item[method.lower()]
        return None, None

    def check(self, response):
        """As a hook of the client: `response` has not been read."""
        method, path = response.request.method, response.request.url.path
        name, operation = self.operation(method, path)
        if operation is None:
            assert response.status_code in (404, 405), f"{method} {path} is in no document"
            return
        status = str(response.status_code)
        declared = operation["responses"].get(status)
        assert declared, f"{method} {name} answers {status}, which is not declared"
        kind = response.headers["content-type"].split(";")[0]
        content = declared["content"]
        assert kind in content or "*/*" in content, f"{method} {name} answers {status} as {kind}"
        sent = operation.get("requestBody", {}).get("content", {}).get("application/json")
        body = response.request.content if sent else b""
        if response.is_success and body:
            # What the server took must be what the document allows.
            self.validate((method, name, "body"), sent["schema"], json.loads(body))
        if kind != "application/json" or kind not in content:
            return
        response.read()
        self.validate((method, name, status), content[kind]["schema"], response.json())

    def validate(self, key, schema, value):
        if key not in self.validators:
            self.validators[key] = jsonschema.Draft202012Validator({**self.schemas, **schema})
        for error in self.validators[key].iter_errors(value):
            at = "/".join(map(str, error.absolute_path))
            raise AssertionError(f"{' '.join(key)}: {at}: {error.message[:500]}")
