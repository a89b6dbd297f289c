"""A model provider over HTTP that says what a test tells it to: the wire format of Anthropic's Messages,
streamed. What it is not told about it answers with "Done."."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def text(said):
    return [{"type": "text", "text": said}]


def tool(name, **input):
    return [{"type": "tool_use", "id": f"toolu_{time.monotonic_ns()}", "name": name, "input": input}]


class Provider:
    """`say` queues answers; a reply is a list of content blocks, or a function of the request's body
    that returns one (and may wait). `requests` are the bodies that came."""

    def __init__(self):
        self.requests = []
        self.replies = []
        self.lock = threading.Lock()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with provider.lock:
                    provider.requests.append(body)
                    reply = provider.replies.pop(0) if provider.replies else text("Done.")
                if callable(reply):
                    reply = reply(body)
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("connection", "close")
                self.end_headers()
                try:
                    for kind, data in frames(reply):
                        self.wfile.write(f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode())
                        self.wfile.flush()
                except (BrokenPipeError, ConnectionResetError):
                    pass
                self.close_connection = True

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def say(self, *replies):
        with self.lock:
            self.replies.extend(replies)

    def forget(self):
        with self.lock:
            self.requests.clear()
            self.replies.clear()


def frames(blocks):
    calls_tool = any(it["type"] == "tool_use" for it in blocks)
    refusal = next((it for it in blocks if it["type"] == "refusal"), None)
    blocks = [it for it in blocks if it is not refusal]
    usage = {"input_tokens": 100, "output_tokens": 1}
    yield "message_start", {"message": {"id": "msg_1", "type": "message", "role": "assistant", "content": [],
                                        "model": "m", "stop_reason": None, "usage": usage}}
    for index, block in enumerate(blocks):
        if block["type"] == "text":
            yield "content_block_start", {"index": index, "content_block": {"type": "text", "text": ""}}
            half = len(block["text"]) // 2
            for piece in (block["text"][:half], block["text"][half:]):
                yield "content_block_delta", {"index": index, "delta": {"type": "text_delta", "text": piece}}
        elif block["type"] == "thinking":
            start = {"type": "thinking", "thinking": "", "signature": ""}
            yield "content_block_start", {"index": index, "content_block": start}
            for kind in ("thinking", "signature"):
                yield "content_block_delta", {"index": index, "delta": {"type": f"{kind}_delta", kind: block[kind]}}
        else:
            start = {**block, "input": {}}
            yield "content_block_start", {"index": index, "content_block": start}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            yield "content_block_delta", {"index": index, "delta": delta}
        yield "content_block_stop", {"index": index}
    stop = "refusal" if refusal else "tool_use" if calls_tool else "end_turn"
    delta = {"stop_reason": stop, "stop_sequence": None, **({"stop_details": refusal} if refusal else {})}
    yield "message_delta", {"delta": delta, "usage": {"output_tokens": 20}}
    yield "message_stop", {}
