import json
import os
import sys

calls = 0
for line in sys.stdin:
    asked = json.loads(line)
    if "id" not in asked:
        continue
    method, result = asked["method"], {}
    if method == "initialize":
        result = {"protocolVersion": asked["params"]["protocolVersion"], "capabilities": {"tools": {}},
                  "serverInfo": {"name": "tiny", "version": "1"}}
    elif method == "tools/list":
        result = {"tools": [{"name": "where", "description": "Says where it is.",
                             "inputSchema": {"type": "object"}}]}
    elif method == "tools/call":
        calls += 1
        print("passed over", file=sys.stderr)
        names = " ".join(sorted(os.environ))
        result = {"content": [{"type": "text", "text": f"cwd={os.getcwd()} calls={calls} env={names}"}]}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
