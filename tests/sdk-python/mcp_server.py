"""A real MCP server in this process, from the `mcp` package, behind a check of bearer tokens; beside it
a token endpoint that takes each refresh token once."""

import base64
import json
import threading
import urllib.parse

import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver import Image

from conftest import until

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")


class McpServer:
    """`tokens` are those that are taken; `None` takes everybody. `calls` are (tool, arguments)."""

    def __init__(self, tokens=None, refresh_token=None):
        self.tokens, self.refresh_token = tokens, refresh_token
        self.calls, self.authorizations, self.grants = [], [], []
        self.is_down = False
        self.lock = threading.Lock()
        self.mcp = MCPServer("of the tests")
        self.add("echo", "Says it again.")
        self.mcp.add_tool(self._fail, name="fail", description="Fails.")
        self.mcp.add_tool(self._picture, name="picture", description="Shows a picture.")
        self.mcp.add_tool(self._long, name="long", description="Says a lot.")
        app = self.mcp.streamable_http_app()
        config = uvicorn.Config(lambda *args: self._guard(app, *args), host="127.0.0.1", port=0,
                                log_level="error", lifespan="on", timeout_graceful_shutdown=1,
                                interface="asgi3")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        until("the MCP server is ready", lambda: self.server.started)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/mcp"
        self.token_endpoint = f"http://127.0.0.1:{port}/token"

    def add(self, name, description):
        """A tool that says its text again, described like this; in the place of one of this name."""
        def echo(text: str) -> str:
            self.calls.append((name, text))
            return f"{name}: {text}"
        if any(it.name == name for it in self.mcp._tool_manager.list_tools()):
            self.mcp._tool_manager.remove_tool(name)
        self.mcp.add_tool(echo, name=name, description=description)

    def describe(self, name, schema):
        """A tool whose arguments are described like this, whatever that says."""
        self.add(name, "Odd.")
        for it in self.mcp._tool_manager.list_tools():
            if it.name == name:
                it.parameters = schema

    def _fail(self) -> str:
        self.calls.append(("fail", None))
        raise ValueError("it is broken")

    def _picture(self) -> Image:
        return Image(data=PNG, format="png")

    def _long(self) -> str:
        return "begin " + "x" * 300_000 + " end"

    async def _guard(self, app, scope, receive, send):
        if scope["type"] != "http":
            return await app(scope, receive, send)
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        if scope["path"] == "/token":
            return await self._grant(headers, receive, send)
        authorization = headers.get("authorization")
        self.authorizations.append(authorization)
        if self.is_down:
            return await answer(send, 503, {"error": "down"})
        if self.tokens is not None and (authorization or "").removeprefix("Bearer ") not in self.tokens:
            return await answer(send, 401, {"error": "no"}, [(b"www-authenticate", b"Bearer")])
        await app(scope, receive, send)

    async def _grant(self, headers, receive, send):
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        form = dict(urllib.parse.parse_qsl(body.decode()))
        with self.lock:
            self.grants.append({**form, "authorization": headers.get("authorization")})
            if form.get("refresh_token") != self.refresh_token:
                return await answer(send, 400, {"error": "invalid_grant"})
            n = len(self.grants)
            self.refresh_token = f"refresh-{n}"
            self.tokens = {f"access-{n}"}
        await answer(send, 200, {"access_token": f"access-{n}", "refresh_token": f"refresh-{n}",
                                 "token_type": "Bearer", "expires_in": 3600})

    def stop(self):
        self.server.should_exit = True
        self.thread.join(10)


async def answer(send, status, body, headers=()):
    data = json.dumps(body).encode()
    await send({"type": "http.response.start", "status": status,
                "headers": [(b"content-type", b"application/json"), *headers]})
    await send({"type": "http.response.body", "body": data})
