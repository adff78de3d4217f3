"""The one table of finding codes: what each means, why it happens and what to do.

CLI help and docs are made from it.
"""

from __future__ import annotations

import msgspec

from meshgw.ir.finding import Level


class Code(msgspec.Struct, frozen=True):
    """One kind of finding."""

    code: str
    level: Level
    title: str
    cause: str
    remedy: str


_E, _W, _I = Level.ERROR, Level.WARNING, Level.INFO

_ROWS = (
    # MG1xxx attachment
    Code(
        "MG1001",
        _E,
        "No matching parent",
        "A parentRef selects no listener by sectionName and port.",
        "Name a listener of the Gateway, or drop sectionName and port.",
    ),
    Code(
        "MG1002",
        _E,
        "Not allowed by listeners",
        "The listener refuses the route's kind or namespace.",
        "Extend allowedRoutes of the listener, or attach to another one.",
    ),
    Code(
        "MG1003",
        _E,
        "No matching host name",
        "The route's hostnames and the listener's have nothing in common.",
        "Give the route a host name that the listener serves.",
    ),
    Code(
        "MG1004",
        _E,
        "Listener conflict",
        "Two listeners of one port claim the same host name or different protocols.",
        "Change the port or the hostname of the later one.",
    ),
    Code(
        "MG1005",
        _E,
        "Unsupported protocol",
        "The listener's protocol or TLS mode is not served.",
        "Use HTTP, HTTPS, TLS, TCP, UDP or (waypoints) HBONE.",
    ),
    Code(
        "MG1006",
        _E,
        "Invalid route kinds",
        "allowedRoutes names kinds that the protocol cannot carry.",
        "Name only kinds that fit the listener's protocol.",
    ),
    Code(
        "MG1007",
        _E,
        "ListenerSet not allowed",
        "The Gateway does not admit ListenerSets of that namespace.",
        "Set allowedListeners.namespaces of the Gateway.",
    ),
    Code(
        "MG1008",
        _E,
        "Gateway not accepted",
        "The Gateway asks for something that is not served.",
        "Read the Accepted condition and mend the named field.",
    ),
    Code(
        "MG1009",
        _E,
        "Unknown role",
        "meshgw.dev/role holds none of ingress, egress, waypoint.",
        "Correct or remove the label.",
    ),
    Code(
        "MG1010",
        _W,
        "Listener without valid parts",
        "No listener of the Gateway can be served.",
        "Read the listeners' conditions.",
    ),
    # MG2xxx references and grants
    Code(
        "MG2001",
        _E,
        "Backend not found",
        "A backendRef names a Service or port that does not exist.",
        "Create it, or correct the reference.",
    ),
    Code(
        "MG2002",
        _E,
        "Reference not permitted",
        "A reference crosses namespaces without a ReferenceGrant.",
        "Create a ReferenceGrant in the target's namespace.",
    ),
    Code(
        "MG2003",
        _E,
        "Invalid kind",
        "A reference names a kind that cannot be used there.",
        "Use a core Service as a backend, a Secret as a certificate.",
    ),
    Code(
        "MG2004",
        _W,
        "No backends",
        "A rule has no backend and no answer of its own: it answers 500.",
        "Add a backendRef, a redirect, or remove the rule.",
    ),
    Code(
        "MG2005",
        _W,
        "No ready endpoints",
        "A backend has no ready endpoint: requests to it answer 503.",
        "Check the Service's selector and its pods.",
    ),
    Code(
        "MG2006",
        _E,
        "Unsupported backend protocol",
        "The backend's appProtocol is not one that this kind of route can speak.",
        "Correct appProtocol; kubernetes.io/wss needs a BackendTLSPolicy.",
    ),
    Code(
        "MG2007",
        _W,
        "Endpoint refused",
        "An endpoint's address is a host name, or an address that would lead to the proxy itself or to its machine.",
        "Use addresses of the network; loopback ones work only in standalone mode.",
    ),
    Code(
        "MG2008",
        _W,
        "TLS backend without a policy",
        "The port's appProtocol is https, but no BackendTLSPolicy says how to verify it: plain HTTP is spoken to it.",
        "Create a BackendTLSPolicy for the Service.",
    ),
    # MG3xxx TLS and identity
    Code(
        "MG3001",
        _E,
        "Invalid certificate",
        "The referenced certificate is missing, malformed or does not fit its key.",
        "Provide tls.crt and tls.key of one certificate in a Secret.",
    ),
    Code(
        "MG3002",
        _E,
        "Invalid CA certificates",
        "The referenced CA bundle is missing or holds no certificate.",
        "Provide PEM certificates under ca.crt.",
    ),
    Code(
        "MG3003",
        _W,
        "Certificate expired",
        "The validity of a certificate that is in use has ended; clients refuse it.",
        "Renew the certificate.",
    ),
    Code(
        "MG3004",
        _E,
        "Backend TLS refused",
        "A BackendTLSPolicy cannot be applied, so the backend is not reached at all.",
        "Mend the policy: its backends stay closed until then.",
    ),
    Code(
        "MG3005",
        _W,
        "Conflicting backend TLS policy",
        "An older policy targets the same section of the Service.",
        "Remove one of them or target other sections.",
    ),
    Code(
        "MG3006",
        _W,
        "Insecure client validation",
        "Client certificates are asked for but not required to be valid.",
        "Use mode AllowValidOnly unless clients authenticate otherwise.",
    ),
    Code(
        "MG3007",
        _W,
        "TLS option without effect",
        "The listener's tls.options names something that is not known.",
        "Remove the option.",
    ),
    # MG4xxx rules and policies
    Code(
        "MG4001",
        _E,
        "Rule cannot be served",
        "Envoy would refuse part of the rule; it answers 500 and nothing else changes.",
        "Read the message and correct the field.",
    ),
    Code(
        "MG4002",
        _E,
        "Invalid regular expression",
        "The expression is not RE2, or larger than Envoy allows.",
        "Simplify it; look-around and back-references do not exist in RE2.",
    ),
    Code(
        "MG4003",
        _E,
        "Unsupported filter",
        "The rule asks for a filter that is not served; it answers 500.",
        "Remove the filter, or use one that the documentation lists.",
    ),
    Code(
        "MG4004",
        _E,
        "Policy denies",
        "Part of an AuthorizationPolicy is not supported, so it denies everything it targets.",
        "Remove the unsupported field.",
    ),
    Code(
        "MG4005",
        _W,
        "Policy without effect",
        "The policy targets nothing that a gateway of ours serves.",
        "Correct targetRefs.",
    ),
    Code(
        "MG4006",
        _W,
        "Setting without effect",
        "Envoy cannot do this part of the rule; the rest is served.",
        "Remove the field.",
    ),
    Code(
        "MG4007",
        _E,
        "Identity not known",
        "Nobody has an identity at ingress and egress Gateways: rules that ask for one allow nobody or deny everybody.",
        "Drop `from` from the rule, or target a waypoint or a Service behind one.",
    ),
    Code(
        "MG4008",
        _W,
        "Policy only observes",
        "Dry runs and action AUDIT never change a decision, and nothing is recorded of them.",
        "Use action ALLOW or DENY without istio.io/dry-run to enforce it.",
    ),
    # MG5xxx mesh enrolment
    Code(
        "MG5001",
        _E,
        "Waypoint not found",
        "istio.io/use-waypoint names a Gateway that is no waypoint of ours.",
        "Create the waypoint or correct the label.",
    ),
    Code(
        "MG5002",
        _E,
        "Waypoint not permitted",
        "The waypoint's listener does not admit that namespace.",
        "Set allowedRoutes.namespaces of its HBONE listener.",
    ),
    Code(
        "MG5003",
        _W,
        "Waypoint does not take this traffic",
        "istio.io/waypoint-for of the waypoint leaves this kind of traffic out.",
        "Change istio.io/waypoint-for, or remove the use-waypoint label.",
    ),
    Code(
        "MG5004",
        _E,
        "No mesh identity",
        "The Gateway needs a mesh certificate and no CA is configured.",
        "Run with --mesh, or configure istiod's address.",
    ),
    Code(
        "MG5005",
        _W,
        "Service without addresses",
        "A service behind a waypoint has no virtual IP, so no client can address it there.",
        "Give the Service a clusterIP.",
    ),
    Code(
        "MG5006",
        _W,
        "Disputed identity",
        "Pods of different identities claim one address, so nobody can say who must be there: nothing is sent.",
        "Remove the Pod that does not have the address.",
    ),
    Code(
        "MG5007",
        _E,
        "Mesh configuration not readable",
        "Istio's mesh ConfigMap cannot be read or is gone; what was read last stays in force, else nothing is served.",
        "Correct it, or create it again; `mesh: {}` in it asks for Istio's defaults.",
    ),
    # MG6xxx data plane
    Code(
        "MG6001",
        _E,
        "Configuration refused",
        "Envoy rejected resources; the last good ones stay in force.",
        "Report this with the message: nothing Envoy rejects should be sent.",
    ),
    Code(
        "MG6002",
        _E,
        "Proxy not running",
        "The Gateway's Envoy does not start.",
        "Read the message and the Envoy's log.",
    ),
    Code(
        "MG6003",
        _E,
        "Address in use",
        "Another process has an address of the Gateway: the listener is held back until it is free.",
        "End the other process, or give the listener another port.",
    ),
    # MG7xxx deployment in a cluster
    Code(
        "MG7001",
        _E,
        "Parameters refused",
        "A parametersRef names something that is not there, or that is no GatewayParameters of meshgw.dev.",
        "Create the GatewayParameters or correct the reference; what is deployed stays as it is until then.",
    ),
    Code(
        "MG7002",
        _E,
        "Name of objects taken",
        "Two Gateways of one namespace would have objects of one name, `<gateway>-<class>`; the older one has them.",
        "Rename one of the Gateways.",
    ),
    Code(
        "MG7003",
        _W,
        "Address not requested",
        "A Service cannot ask for such an address, or not for another one beside the first.",
        "Use an IPAddress that the type of the Service can have; others are for you to point at the Service.",
    ),
    Code(
        "MG7004",
        _W,
        "Label or annotation left out",
        "A label or annotation of spec.infrastructure would decide who the proxies are, or who takes or confines them.",
        "Remove it, or set it by a GatewayParameters where that is possible.",
    ),
    Code(
        "MG7005",
        _E,
        "Parameters not permitted",
        "The installation lets GatewayParameters of Gateways say less than those of classes, or nothing at all.",
        "Remove the reference or the field, or ask for a class that says so; what is deployed stays until then.",
    ),
    # MG9xxx input and installation
    Code(
        "MG9001",
        _E,
        "Internal error",
        "Computing this object failed; its last good configuration stays in force, policies deny.",
        "Report this with the object.",
    ),
    Code(
        "MG9101",
        _E,
        "Broken YAML",
        "The document cannot be parsed.",
        "Correct the syntax at the named line; what the file held before stays in force.",
    ),
    Code(
        "MG9102",
        _E,
        "Wrong shape",
        "A field has the wrong type or value, or is too long or too deep to be read.",
        "Correct it; until then the last good version of the object holds, or all of it but a value that is too long.",
    ),
    Code(
        "MG9103",
        _E,
        "Duplicate object",
        "Two documents define the same object; the first file in name order wins.",
        "Remove one.",
    ),
    Code(
        "MG9104",
        _I,
        "Unknown kind",
        "Documents of this kind are not read.",
        "Nothing, unless the apiVersion or kind is misspelt.",
    ),
    Code(
        "MG9105",
        _W,
        "Unknown field",
        "The field is not part of the API and is ignored.",
        "Check its spelling and place.",
    ),
    Code(
        "MG9106",
        _E,
        "Unreadable file",
        "The file cannot be read; what it held before stays in force.",
        "Check the path and permissions.",
    ),
    Code(
        "MG9107",
        _E,
        "Kind not served",
        "A CustomResourceDefinition is missing, is being removed or serves no known version.",
        "Install the definition again; until then the objects that were last seen stay in force.",
    ),
    Code(
        "MG9108",
        _E,
        "Kind not readable",
        "The API server refuses to list or watch these objects; those that were last seen stay in force.",
        "Grant get, list and watch to the controller's ServiceAccount.",
    ),
)

CODES = {row.code: row for row in _ROWS}
