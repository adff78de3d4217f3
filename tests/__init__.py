"""Tests of meshgw: `unit` mirrors the package, `envoy` drives the real proxy, `rig` is what they share."""
