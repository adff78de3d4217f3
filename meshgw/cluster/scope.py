"""What is watched where: all namespaces, those of a list or selector; Secrets only where Gateways use them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final, Protocol

import msgspec

from meshgw import names
from meshgw.api.meta import LabelSelector, LabelSelectorRequirement
from meshgw.api.registry import Kind
from meshgw.engine import Graph, Table
from meshgw.resolve import tables as t
from meshgw.resolve.namespaces import LABEL_NAME, selects

EVERYWHERE: Final = ""
SECRET: Final = "Secret"  # noqa: S105 - the name of a kind
SECRETS_FOLLOW: Final[tuple[Table[Any, Any], ...]] = (
    t.OUR_GATEWAYS,
    t.LISTENER_SET_RESULTS,
    t.BACKEND_TLS_POLICIES,
    t.REFERENCE_GRANTS,
)
"""The tables from which the namespaces of Secrets follow."""

_REFERRERS: Final = frozenset({"Gateway", "ListenerSet"})
_TERM: Final = re.compile(r"\s*(?:(?P<not>!)?\s*(?P<key>[\w./-]+))\s*(?P<rest>.*?)\s*", re.ASCII)
_SET: Final = re.compile(r"(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)")
_EQUAL: Final = re.compile(r"(?P<operator>==|=|!=)\s*(?P<value>[\w.-]*)", re.ASCII)


class Following(Protocol):
    """What follows objects; `meshgw.kube.watches.WatchSet` does."""

    def follow(self, kind: Kind, namespaces: Collection[str] | None = None) -> None:
        """Follow a kind in these namespaces, or with None in all, instead of where it was followed before."""


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """The namespaces that are served: those listed, or those with the labels, or all."""

    namespaces: tuple[str, ...] = ()
    selector: LabelSelector | None = None

    def served(self, graph: Graph) -> frozenset[str]:
        """Return the namespaces to watch; {EVERYWHERE} for all."""
        if self.namespaces:
            return frozenset(self.namespaces)
        if self.selector is None:
            return frozenset({EVERYWHERE})
        return frozenset(
            key.name
            for key, row in graph.rows(t.NAMESPACES).items()
            if selects(self.selector, {**row.metadata.labels, LABEL_NAME: key.name})
        )


def follow_served(watches: Following, kinds: Iterable[Kind], served: frozenset[str], *, root: str) -> None:
    """Follow all kinds but Secrets in the namespaces that are served, and those without namespaces everywhere.

    What holds for all namespaces from Istio's `root` namespace is followed there too: a policy that is not seen
    denies nobody.
    """
    for kind in kinds:
        if kind.name != SECRET:
            namespaces = served | {root} if kind.rooted else served
            watches.follow(kind, None if EVERYWHERE in served else namespaces)


def secret_namespaces(graph: Graph, served: frozenset[str]) -> frozenset[str]:
    """Return the namespaces whose Secrets Gateways of ours may use, among those that are served.

    Those of the Gateways themselves, of their ListenerSets, of policies that name Secrets as roots, and those that
    grant their Secrets to one of the former.
    """
    own = {key.namespace for key in graph.rows(t.OUR_GATEWAYS)}
    own.update(key.namespace for key in graph.rows(t.LISTENER_SET_RESULTS))
    granting = {
        key.namespace
        for key, row in graph.rows(t.REFERENCE_GRANTS).items()
        if any(target.group == names.CORE_GROUP and target.kind == SECRET for target in row.spec.to)
        and any(
            source.group == names.GATEWAY_GROUP and source.kind in _REFERRERS and source.namespace in own
            for source in row.spec.from_
        )
    }
    roots = (
        {
            key.namespace
            for key, row in graph.rows(t.BACKEND_TLS_POLICIES).items()
            if not row.unreadable and any(ref.kind == SECRET for ref in row.spec.validation.ca_certificate_refs)
        }
        if own
        else set()
    )
    found = own | granting | roots
    return frozenset(found if EVERYWHERE in served else found & served)


def parse_selector(text: str) -> LabelSelector:
    """Return the label selector that `text` spells as kubectl does: `a=b,c!=d,e in (f,g),h,!i`; raises ValueError."""
    return LabelSelector(match_expressions=tuple(_requirement(term) for term in _terms(text)))


def _terms(text: str) -> Iterator[str]:
    """Split at commas outside of parentheses."""
    depth, begin = 0, 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            yield text[begin:position]
            begin = position + 1
    yield text[begin:]


def _requirement(term: str) -> LabelSelectorRequirement:
    found = _TERM.fullmatch(term)
    if found is None:
        raise ValueError(f"{term.strip()!r} is no label requirement")
    key, rest, negated = found["key"], found["rest"], bool(found["not"])
    if not rest:
        return LabelSelectorRequirement(key=key, operator="DoesNotExist" if negated else "Exists")
    if not negated and (equal := _EQUAL.fullmatch(rest)):
        operator = "NotIn" if equal["operator"] == "!=" else "In"
        return LabelSelectorRequirement(key=key, operator=operator, values=(equal["value"],))
    if not negated and (members := _SET.fullmatch(rest)):
        values = tuple(value.strip() for value in members["values"].split(","))
        operator = "NotIn" if members["operator"] == "notin" else "In"
        return LabelSelectorRequirement(key=key, operator=operator, values=values)
    raise ValueError(f"{term.strip()!r} is no label requirement")
