"""Where the API server is and who we are to it: kubeconfig files or the pod's account, read again as they change."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import structlog
from msgspec import Struct

from meshgw.kube.errors import AccessError

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token, the CA of the API server and its namespace."""

REREAD: Final = 60.0
"""Seconds after which credentials are looked at again."""

_HASTE: Final = 5.0
"""Seconds between two looks at credentials that the server refused."""

_PLUGIN: Final = 60.0
"""Seconds that an exec plugin may take."""

_AHEAD: Final = timedelta(minutes=5)
"""How long before its end a credential of a plugin is replaced."""

_log = structlog.get_logger(__name__)


class KubeSettings(Struct, frozen=True, kw_only=True):
    """Which API server, as whom; without a kubeconfig a pod uses its account, and others $KUBECONFIG or ~/.kube/config.

    `kubeconfig` is one path or several, separated as in $KUBECONFIG; `context` is the current one by default.
    """

    kubeconfig: str = ""
    context: str = ""
    account: Path = ACCOUNT


class Access:
    """How to reach the API server now. It has no repr of its own, because it holds a token."""

    def __init__(
        self, *, host: str, authorization: str, tls: ssl.SSLContext | None, server_name: str, proxy: str
    ) -> None:
        self.host: Final = host
        self.authorization: Final = authorization
        self.tls: Final = tls
        self.server_name: Final = server_name
        self.proxy: Final = proxy


class _Source(Protocol):
    async def load(self) -> Any | None:
        """Return the library's configuration, None if it is as before."""

    def forget(self) -> None:
        """Drop credentials that were refused, so that the next load gets others."""


class Entry:
    """Gives the access in force; sources are looked at again every minute, or when the server refuses."""

    def __init__(
        self,
        settings: KubeSettings,
        *,
        environ: Mapping[str, str] = os.environ,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._now = now
        self._source: _Source | None = None
        self._access: Access | None = None
        self._digest = b""
        self._read_at = 0.0
        self._lock = asyncio.Lock()

    @property
    def in_cluster(self) -> bool:
        """Whether the pod's own account is used."""
        settings = self._settings
        return not settings.kubeconfig and not settings.context and bool(self._environ.get("KUBERNETES_SERVICE_HOST"))

    async def access(self, *, refused: Access | None = None) -> Access:
        """Return the access in force, another than the refused one if there is any; raises `AccessError`."""
        async with self._lock:
            known, age = self._access, self._now() - self._read_at
            is_refused = refused is not None and refused is known
            if known is not None and age < (_HASTE if is_refused else REREAD):
                return known
            if is_refused and self._source is not None:
                self._source.forget()
            try:
                access = await self._read()
            except (AccessError, OSError) as error:
                if known is None:
                    raise AccessError(str(error)) from None
                _log.warning("credentials for the API server cannot be read; the old ones stay", error=str(error))
                access = known
            self._access, self._read_at = access, self._now()
            return access

    async def _read(self) -> Access:
        # Half a second and 47 MiB: nobody else pays for it.
        library = await asyncio.to_thread(import_module, "kubernetes.aio.config.kube_config")
        account = await asyncio.to_thread(import_module, "kubernetes.aio.config.incluster_config")
        if self._source is None:
            made = _Account(account, self._settings, self._environ) if self.in_cluster else None
            self._source = made or _Files(library, self._settings, self._environ)
        try:
            configuration = await self._source.load()
            if configuration is None and self._access is not None:
                return self._access
            return self._made(configuration)
        except library.ConfigException as error:
            # The library names a faulty entry by its content, which may be a token.
            raise AccessError(re.sub(r"\s*\S*\{.*", " an entry", str(error), flags=re.DOTALL)) from None
        except (library.yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise AccessError(f"the kubeconfig is malformed ({type(error).__name__})") from None
        except TimeoutError:
            raise AccessError(f"the exec plugin of the kubeconfig took more than {_PLUGIN:.0f} s") from None
        finally:
            # Keys that a kubeconfig holds are in files now, which OpenSSL needed for a moment.
            library._cleanup_temp_files()  # noqa: SLF001 - the library would keep them until the process ends

    def _made(self, configuration: Any) -> Access:
        host = str(configuration.host).rstrip("/")
        tls, known = None, self._access
        if host.startswith("https:"):
            digest = _digest(configuration)
            tls = known.tls if known is not None and digest == self._digest else _context(configuration)
            self._digest = digest
        return Access(
            host=host,
            authorization=str(configuration.api_key.get("BearerToken") or "").strip(),
            tls=tls,
            server_name=configuration.tls_server_name or "",
            proxy=configuration.proxy or _proxy(host),
        )


class _Account:
    """The account of the pod; the kubelet replaces its token."""

    def __init__(self, library: Any, settings: KubeSettings, environ: Mapping[str, str]) -> None:
        self._library = library
        self._folder = settings.account
        self._environ = environ

    async def load(self) -> Any:
        """Return the token now in its file, and the CA."""
        configuration = self._library.Configuration()
        files = str(self._folder / "token"), str(self._folder / "ca.crt")
        self._library.InClusterConfigLoader(*files, environ=self._environ).load_and_set(configuration)
        return configuration

    def forget(self) -> None:
        """Nothing is kept: every load reads the file."""


class _Files:
    """Kubeconfig files; what a plugin or provider gave is kept as long as it is valid."""

    def __init__(self, library: Any, settings: KubeSettings, environ: Mapping[str, str]) -> None:
        self._library = library
        self._context = settings.context or None
        self._paths = settings.kubeconfig or environ.get("KUBECONFIG", "") or str(Path("~/.kube/config").expanduser())
        self._signature: object = None
        self._loader: Any = None

    async def load(self) -> Any | None:
        """Read what changed; run a plugin when its credential nears its end."""
        signature = _signature(self._paths)
        if not signature:
            raise AccessError(f"there is no kubeconfig at {self._paths}, and this is no pod")
        configuration = self._library.Configuration()
        if self._loader is not None and signature == self._signature:
            if self._is_plugin_content():
                return None
            if self._loader.provider:  # these keep what they got in memory
                await asyncio.wait_for(self._loader.load_and_set(configuration), _PLUGIN)
                return configuration
        self._loader = await asyncio.wait_for(
            self._library.load_kube_config(
                config_file=self._paths,
                context=self._context,
                client_configuration=configuration,
                persist_config=False,
                temp_file_path=_memory(),
            ),
            _PLUGIN,
        )
        self._signature = signature
        if self._uses_plugin() and not configuration.api_key and not configuration.cert_file:
            self._loader = None
            raise AccessError("the exec plugin of the kubeconfig gave no credential")
        return configuration

    def forget(self) -> None:
        """Start from the files again."""
        self._loader = None

    def _uses_plugin(self) -> bool:
        return bool(self._loader._user) and "exec" in self._loader._user  # noqa: SLF001 - it tells it nowhere else

    def _is_plugin_content(self) -> bool:
        """Whether a plugin gave something that does not end yet, or of which nothing but a refusal tells the end."""
        if not self._uses_plugin():
            return False
        end: datetime | None = getattr(self._loader, "exec_plugin_expiry", None)
        return end is None or end - _AHEAD > datetime.now(UTC)


def _signature(paths: str) -> list[tuple[str, int, int]]:
    """Return path, time and size of those kubeconfig files that exist."""
    files = [Path(path).expanduser() for path in paths.split(os.pathsep) if path]
    return [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.is_file()]


def _memory() -> str | None:
    """Return a folder that is no disk, if the system has one."""
    shared = Path("/dev/shm")  # noqa: S108 - files there have random names and mode 0600
    return str(shared) if shared.is_dir() and os.access(shared, os.W_OK) else None


def _digest(configuration: Any) -> bytes:
    """Return a digest of all that a TLS context is made from."""
    found = blake2b(repr((configuration.verify_ssl, configuration.ca_cert_data)).encode(), digest_size=32)
    for path in (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file):
        found.update(Path(path).read_bytes() if path else b"-")
    return found.digest()


def _context(configuration: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert, cadata=configuration.ca_cert_data)
    # Python 3.13 refuses CAs without the key identifiers of RFC 5280; clusters have such, other clients accept them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _proxy(host: str) -> str:
    """Return the proxy that the environment names for a host."""
    parts = urlsplit(host)
    return "" if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme, "")
