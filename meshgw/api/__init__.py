"""Typed Kubernetes, Gateway API and Istio objects, as frozen values with the API server's defaults."""
