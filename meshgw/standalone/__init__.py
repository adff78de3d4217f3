"""Runs stock Envoy processes on this machine: find, bootstrap, supervise, and choose where they listen."""
