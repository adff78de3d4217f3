"""The CustomResourceDefinitions of the Gateway API, of Istio and of cert-manager, out of their pinned Go modules."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from tests.cluster.programs import module_folder

_PATHS = {
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "ValidatingAdmissionPolicy": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings",
}


class Definition(NamedTuple):
    """One object as YAML, and its path at an API server."""

    path: str
    text: bytes


@cache
def gateway_api(channel: str = "experimental") -> tuple[Definition, ...]:
    """Return the Gateway API's CRDs of one release channel, and the policy that guards upgrades."""
    folder = module_folder("crds", "sigs.k8s.io/gateway-api") / "config" / "crd" / channel
    return _definitions(path.read_text() for path in sorted(folder.glob("gateway*.yaml")))


@cache
def istio() -> tuple[Definition, ...]:
    """Return Istio's CRDs."""
    charts = module_folder("istio", "istio.io/istio") / "manifests" / "charts"
    return _definitions([(charts / "base" / "files" / "crd-all.gen.yaml").read_text()])


@cache
def cert_manager() -> tuple[Definition, ...]:
    """Return cert-manager's CRDs."""
    folder = module_folder("certmanager", "github.com/cert-manager/cert-manager") / "deploy" / "crds"
    return _definitions(path.read_text() for path in sorted(folder.glob("cert-manager.io_*.yaml")))


def _definitions(files: Iterable[str]) -> tuple[Definition, ...]:
    """Return the documents of `files`, told by their text alone: parsing a megabyte of schemas takes seconds."""
    found = []
    for document in re.split(r"^---.*$", "\n".join(f"---\n{text}" for text in files), flags=re.MULTILINE):
        kind = re.search(r"^kind: (\w+)", document, re.MULTILINE)
        name = re.search(r"^metadata:\n(?:  .*\n)*?  name: [\"']?([\w.-]+)", document, re.MULTILINE)
        if kind and name:
            found.append(Definition(f"{_PATHS[kind[1]]}/{name[1]}", document.encode()))
    return tuple(found)
