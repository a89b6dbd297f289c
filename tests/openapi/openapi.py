"""A server of its own, its document read by a validator, and schemathesis on both."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request

from openapi_spec_validator import validate

KEY = "openapi-test-key-0123456789"
CHECKS = [
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "unsupported_method",
]
# Streams of sessions never end by themselves; the suites of the SDKs read them.
ENDLESS = "(/events/stream|/threads/[^/]+/stream)$"


class Server:
    def __init__(self, directory):
        environment = {"PATH": os.environ["PATH"], "BELLPULL_MASTER_KEY": KEY}
        self.process = subprocess.Popen(
            [os.environ["BELLPULL_TEST_BINARY"], "serve", "--listen", "127.0.0.1:0",
             "--data-dir", os.path.join(directory, "data")],
            env=environment, stderr=subprocess.PIPE, text=True,
        )
        self.url = next(
            "http://" + found[1]
            for line in self.process.stderr
            if (found := re.search(r"is listening.*address=(\S+)", line))
        )
        self.log = []
        threading.Thread(target=lambda: self.log.extend(self.process.stderr), daemon=True).start()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, "".join(self.log[-50:])


def main():
    is_full = os.environ.get("BELLPULL_TEST_FULL") == "1"
    with tempfile.TemporaryDirectory(prefix="bellpull-openapi-") as directory:
        server = Server(directory)
        try:
            with urllib.request.urlopen(server.url + "/openapi.json", timeout=10) as response:
                document = json.load(response)
            validate(document)
            print(f"{len(document['paths'])} paths, valid", flush=True)
            command = [
                "schemathesis", "run", server.url + "/openapi.json",
                "--checks", ",".join(CHECKS), "--header", f"Authorization: Bearer {KEY}",
                "--exclude-path-regex", ENDLESS, "--request-timeout", "60",
                "--suppress-health-check", "all", "--warnings", "off",
                "--phases", "fuzzing",
                "--max-examples", "60" if is_full else "3", "--continue-on-failure",
                "--generation-deterministic", "--no-color", "--workers", "2", *sys.argv[1:],
            ]
            environment = {
                **os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": os.getcwd(),
                "BELLPULL_URL": server.url, "BELLPULL_API_KEY": KEY,
            }
            done = subprocess.run(command, env=environment, cwd=os.getcwd())
        finally:
            server.stop()
        panics = [line for line in server.log if "panic" in line]
        assert not panics, panics[:5]
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
