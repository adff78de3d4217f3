"""A program that stands in for Envoy in fault tests: its bootstrap says how to behave under `fake`.

`log` lines to print; `exit` status to end with at once; `silent`: no admin interface; `state` that /ready tells;
`connections` open, and `until_drain` whether they leave when drained; `deaf`: ignores SIGTERM; `lives` seconds.
"""

import http.server
import json
import os
import pathlib
import signal
import socketserver
import sys
import threading
import time
from typing import Any


def main() -> None:
    if "--version" in sys.argv:
        sys.stdout.write("\nenvoy  version: 0123456789abcdef/9.8.7/Clean/RELEASE/BoringSSL\n")
        return
    bootstrap = json.loads(pathlib.Path(sys.argv[sys.argv.index("-c") + 1]).read_bytes())
    fake: dict[str, Any] = bootstrap.get("fake", {})
    for line in fake.get("log", ()):
        sys.stderr.write(line + "\n")
    sys.stderr.flush()
    if "signal" in fake:
        os.kill(os.getpid(), fake["signal"])
    if "exit" in fake:
        sys.exit(fake["exit"])
    if fake.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "lives" in fake:
        threading.Timer(fake["lives"], lambda: os._exit(0)).start()
    if fake.get("silent"):
        time.sleep(60)
    else:
        serve(bootstrap["admin"]["address"]["pipe"]["path"], fake)


def serve(path: str, fake: dict[str, Any]) -> None:
    state = {"connections": fake.get("connections", 0), "posts": []}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/ready":
                self.answer(fake.get("state", "LIVE") + "\n")
            elif self.path == "/posts":
                self.answer(json.dumps(state["posts"]))
            else:
                name = "listener.127.0.0.1_80.downstream_cx_active"
                self.answer(json.dumps({"stats": [{"name": name, "value": state["connections"]}]}))

        def do_POST(self) -> None:
            state["posts"].append(self.path)
            sys.stderr.write(f"POST {self.path}\n")
            sys.stderr.flush()
            if fake.get("until_drain"):
                state["connections"] = 0
            self.answer("OK\n")

        def answer(self, text: str) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_arguments: object) -> None:
            pass

    with socketserver.ThreadingUnixStreamServer(path, Handler) as server:
        server.serve_forever(poll_interval=60)


main()
