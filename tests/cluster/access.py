"""Access to a cluster for tests: kubectl, plain requests and kubeconfigs, whoever provides the cluster."""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import yaml

from tests.cluster import crds, seed
from tests.cluster.pki import kubeconfig, write_private
from tests.cluster.processes import wait_until
from tests.cluster.programs import executable

_MANAGER = "meshgw-tests"


class KubectlError(Exception):
    """kubectl failed; the message is its own."""


class _Condition(msgspec.Struct):
    type: str
    status: str


class _Status(msgspec.Struct):
    conditions: list[_Condition] | None = None


class _Definition(msgspec.Struct):
    status: _Status


class Access:
    """What an administrator of one cluster can do from here. Everything blocks: call it with `asyncio.to_thread`."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        """Path of the administrator's kubeconfig."""

        document = yaml.safe_load(kubeconfig.read_text())
        cluster = document["clusters"][0]["cluster"]
        user = document["users"][0]["user"]
        self.url: str = cluster["server"]
        """`https://host:port` of the API server."""

        self.authority: bytes = base64.b64decode(cluster["certificate-authority-data"])
        """PEM of the authority that signed the API server's certificate."""

        self._headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        self._context = ssl.create_default_context(cadata=self.authority.decode())
        if "client-certificate-data" in user:
            with tempfile.TemporaryDirectory(prefix="meshgw-tests-") as folder:  # ssl takes files only
                certificate, key = Path(folder) / "crt", Path(folder) / "key"
                certificate.write_bytes(base64.b64decode(user["client-certificate-data"]))
                write_private(key, base64.b64decode(user["client-key-data"]))
                self._context.load_cert_chain(certificate, key)

    def kubectl(self, *arguments: str | Path, stdin: str | bytes | None = None, within: float = 60.0) -> str:
        """Return what `kubectl ARGUMENTS` prints; raises KubectlError."""
        finished = subprocess.run(
            [executable("kubectl"), "--kubeconfig", self.kubeconfig, *arguments],
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env={**os.environ, "HOME": str(self.kubeconfig.parent)},
            timeout=within,
            check=False,
        )
        if finished.returncode:
            raise KubectlError(f"kubectl {' '.join(map(str, arguments))}: {finished.stderr.decode().strip()}")
        return finished.stdout.decode()

    def get(self, *arguments: str) -> Any:
        """Return the document of `kubectl get ARGUMENTS`."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, *documents: Mapping[str, Any] | str | Path) -> None:
        """Apply objects, YAML texts, files and folders on the server's side."""
        texts = [json.dumps(d) if isinstance(d, Mapping) else d for d in documents if not isinstance(d, Path)]
        command = ["apply", "--server-side", "--force-conflicts", f"--field-manager={_MANAGER}", "-f"]
        for path in documents:
            if isinstance(path, Path):
                self.kubectl(*command, path)
        if texts:
            self.kubectl(*command, "-", stdin="\n---\n".join(texts))

    def create_namespace(self, name: str, **labels: str) -> str:
        """Create a namespace and return its name; `istio_io__dataplane_mode="x"` becomes `istio.io/dataplane-mode`."""
        named = {}
        for key, value in labels.items():
            domain, separator, short = key.rpartition("__")
            named[f"{domain.replace('_', '.')}{separator and '/'}{short.replace('_', '-')}"] = value
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": named}})
        return name

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        within: float = 30.0,
    ) -> tuple[int, bytes]:
        """Return status and body of one request to the API server; `body` may be bytes or a document."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPSConnection(
            parts.hostname or "", parts.port, context=self._context, timeout=within
        )
        try:
            encoded = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            headers = {**self._headers, **({"Content-Type": content_type} if encoded is not None else {})}
            connection.request(method, path, encoded, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def lines(self, path: str, *, idle: float = 330.0) -> Iterator[bytes]:
        """Yield the lines of an answer as they come; raises TimeoutError after `idle` seconds of silence."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, context=self._context, timeout=idle)
        try:
            connection.request("GET", path, headers=self._headers)
            answer = connection.getresponse()
            while line := answer.readline():
                yield line
        finally:
            connection.close()

    def is_ready(self) -> bool:
        """Whether the API server says that it is ready."""
        try:
            return self.request("GET", "/readyz", within=2.0)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def token(self, namespace: str, account: str, *, audience: str = "", seconds: int = 3600) -> str:
        """Return a new token of a ServiceAccount."""
        spec = {"expirationSeconds": seconds, **({"audiences": [audience]} if audience else {})}
        status, body = self.request(
            "POST",
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token",
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
        )
        if status != 201:
            raise KubectlError(f"TokenRequest for {namespace}/{account}: {status} {body.decode()}")
        token: str = json.loads(body)["status"]["token"]
        return token

    def account_kubeconfig(self, namespace: str, account: str, path: Path) -> Path:
        """Write a kubeconfig that holds a token of an existing ServiceAccount to `path`, and return it."""
        return write_private(path, kubeconfig(self.url, self.authority, self.token(namespace, account)))

    def install_gateway_api(self, channel: str = "experimental") -> None:
        """Install the Gateway API's CRDs, and wait until they are served."""
        self._install(crds.gateway_api(channel))

    def install_istio(self) -> None:
        """Install Istio's CRDs, and wait until they are served."""
        self._install(crds.istio())

    def install_cert_manager(self) -> None:
        """Install cert-manager's CRDs, without what acts on them, and wait until they are served."""
        self._install(crds.cert_manager())

    def wait_defined(self) -> None:
        """Wait until a server that started with definitions serves them."""
        for group in seed.GROUPS:
            path = f"/apis/{group}"
            wait_until(lambda path=path: self.request("GET", path)[0] == 200, what=f"{path} is served", within=60)

    def _install(self, definitions: Sequence[crds.Definition]) -> None:
        """Apply all of them, several at a time: kubectl would take longer to read them than the server to accept."""
        with ThreadPoolExecutor(8) as pool:
            for status, body in pool.map(self._apply_definition, definitions):
                if status not in (200, 201):
                    raise KubectlError(f"CustomResourceDefinition refused: {status} {body.decode()}")
        waiting = [definition.path for definition in definitions if "/customresourcedefinitions/" in definition.path]
        wait_until(lambda: all(map(self._is_served, waiting)), what="definitions are served", within=60)

    def _is_served(self, path: str) -> bool:
        definition = msgspec.json.decode(self.request("GET", path)[1], type=_Definition)
        return any(c.type == "Established" and c.status == "True" for c in definition.status.conditions or ())

    def _apply_definition(self, definition: crds.Definition) -> tuple[int, bytes]:
        path = f"{definition.path}?fieldManager={_MANAGER}&force=true"
        return self.request("PATCH", path, definition.text, content_type="application/apply-patch+yaml")
