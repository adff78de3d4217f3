"""Resolved values: what gateways serve, free of Kubernetes documents and of Envoy messages."""
