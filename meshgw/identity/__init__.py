"""Mesh identities: SPIFFE names, the Istio CA protocol at both ends, and certificates that stay fresh."""
