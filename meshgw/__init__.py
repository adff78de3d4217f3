"""Gateways beside an Istio mesh: Gateway API objects in, Envoy configuration out."""

__version__ = "0.1.0"
