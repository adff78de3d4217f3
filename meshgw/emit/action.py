"""What happens to a matched request: RouteAction and RedirectAction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from meshgw.emit.headers import edit_fields
from meshgw.ir.route import Backend, Filters, Mirror, Redirect, Retry, Rule
from meshgw.protos import (
    DirectResponseAction,
    FractionalPercent,
    PreviousHostsPredicate,
    RedirectAction,
    RetryPolicy,
    RouteAction,
    RuntimeFractionalPercent,
    WeightedCluster,
    any_of,
    duration,
)

SAFE_RETRIES: Final = "connect-failure,refused-stream,reset-before-request"
"""Failures after which no backend has seen the request, so that any request may be sent again."""
_SAFE_ATTEMPTS: Final = 2
_HOST_ATTEMPTS: Final = 5
NO_CLUSTER: Final = "none"
"""A cluster that never exists (clusters have slashes in their names): HTTP answers 500, connections are closed."""

_STATUSES: Final = {
    301: RedirectAction.MOVED_PERMANENTLY,
    302: RedirectAction.FOUND,
    303: RedirectAction.SEE_OTHER,
    307: RedirectAction.TEMPORARY_REDIRECT,
    308: RedirectAction.PERMANENT_REDIRECT,
}
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_DENOMINATORS: Final = (
    (100, FractionalPercent.HUNDRED),
    (10_000, FractionalPercent.TEN_THOUSAND),
    (1_000_000, FractionalPercent.MILLION),
)


def answer(status: int) -> DirectResponseAction:
    """An answer of the gateway's own, without a body."""
    return DirectResponseAction(status=status)


class RedirectPort(NamedTuple):
    """How a redirect names its port: `always`, or only `if_given`, that is where the client's Host header has one."""

    always: int = 0
    if_given: int = 0


def redirect_port(redirect: Redirect, *, port: int, https: bool) -> RedirectPort:
    """The port of the Location header; a scheme's default port is left out where Envoy can leave it out."""
    scheme = redirect.scheme or ("https" if https else "http")
    default = _DEFAULT_PORTS[scheme]
    target = redirect.port or (default if redirect.scheme else port)
    if target != default:
        return RedirectPort(always=target)
    if redirect.hostname or not (redirect.scheme or redirect.port):
        return RedirectPort()
    return RedirectPort(if_given=target)


def redirect_action(redirect: Redirect, path: dict[str, Any], *, port: int) -> RedirectAction:
    """The redirect; `path` are the fields that change the path, a `port` of 0 keeps the client's."""
    return RedirectAction(
        scheme_redirect=redirect.scheme,
        host_redirect=redirect.hostname,
        port_redirect=port,
        response_code=_STATUSES[redirect.status],
        **path,
    )


def retry_policy(retry: Retry | None, per_try: int | None) -> RetryPolicy | None:
    """The rule's retries, None to inherit the virtual host's. A failed connection counts as a retriable answer."""
    if retry is None and not per_try:
        return None
    if retry is None:
        policy = safe_retries()
    elif retry.attempts == 0:
        policy = RetryPolicy(num_retries={"value": 0})
    else:
        policy = RetryPolicy(
            retry_on="connect-failure,refused-stream,reset" + (",retriable-status-codes" if retry.codes else ""),
            num_retries={"value": retry.attempts},
            retriable_status_codes=sorted(set(retry.codes)),
            retry_host_predicate=[_other_host()],
            host_selection_retry_max_attempts=_HOST_ATTEMPTS,
        )
        if retry.backoff:
            policy.retry_back_off.base_interval.CopyFrom(duration(retry.backoff))
    if per_try:
        policy.per_try_timeout.CopyFrom(duration(per_try))
    return policy


def safe_retries() -> RetryPolicy:
    """Retries that cannot repeat a request.

    Every virtual host has them, so they leave out what rules pay for: to look for an endpoint not yet tried costs Envoy
    as much again for each virtual host of a changed RouteConfiguration.
    """
    return RetryPolicy(retry_on=SAFE_RETRIES, num_retries={"value": _SAFE_ATTEMPTS})


def edits(backend: Backend) -> bool:
    """Whether the backend has header changes of its own."""
    filters = backend.filters
    return filters is not None and (filters.request is not None or filters.response is not None)


@cache
def _other_host() -> RetryPolicy.RetryHostPredicate:
    return RetryPolicy.RetryHostPredicate(
        name="envoy.retry_host_predicates.previous_hosts", typed_config=any_of(PreviousHostsPredicate())
    )


def forward(rule: Rule, backends: Sequence[Backend], filters: Filters) -> RouteAction:
    """Send to backends, of which at least one has a weight and a target.

    If one of them changes headers, all of them carry the header changes of `filters` too, and the route must not: Envoy
    would apply the route's last.
    """
    action = RouteAction(timeout=duration(rule.timeout or 0))
    first = backends[0]
    if len(backends) == 1 and first.target is not None and not edits(first):
        action.cluster = first.target.cluster
    else:
        action.weighted_clusters.CopyFrom(_weighted(backends, filters))
        if any(backend.target is None for backend in backends):
            action.cluster_not_found_response_code = RouteAction.INTERNAL_SERVER_ERROR
    policy = retry_policy(rule.retry, rule.backend_timeout)
    if policy is not None:
        action.retry_policy.CopyFrom(policy)
    for mirror in filters.mirrors:
        _add_mirror(action, mirror)
    return action


def _weighted(backends: Sequence[Backend], outer: Filters) -> WeightedCluster:
    weighted = WeightedCluster()
    together = any(map(edits, backends))
    for backend in backends:
        own = backend.filters or Filters()
        fields = edit_fields((outer.request, own.request), (outer.response, own.response)) if together else {}
        weighted.clusters.add(
            name=NO_CLUSTER if backend.target is None else backend.target.cluster,
            weight={"value": backend.weight},
            **fields,
        )
    return weighted


def _add_mirror(action: RouteAction, mirror: Mirror) -> None:
    """Add a mirror that sends the client's own Host header."""
    if mirror.numerator <= 0 or mirror.denominator <= 0:
        return
    policy = action.request_mirror_policies.add(cluster=mirror.target.cluster, disable_shadow_host_suffix_append=True)
    if mirror.numerator < mirror.denominator:
        policy.runtime_fraction.CopyFrom(
            RuntimeFractionalPercent(default_value=_fraction(mirror.numerator, mirror.denominator))
        )


def _fraction(numerator: int, denominator: int) -> FractionalPercent:
    for size, name in _DENOMINATORS:
        scaled, rest = divmod(numerator * size, denominator)
        if not rest:
            return FractionalPercent(numerator=scaled, denominator=name)
    return FractionalPercent(
        numerator=round(numerator * 1_000_000 / denominator), denominator=FractionalPercent.MILLION
    )
