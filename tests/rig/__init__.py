"""The rig of behaviour tests: echo backends, clients, HBONE at both ends, certificates, load, and real Envoy.

Loopback only; everything it starts it stops, by process id.
"""
