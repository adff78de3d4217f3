"""Values that hold keys do not show them; names of secrets are one to one."""

from __future__ import annotations

from meshgw.ir.backend import Certificate, WorkloadCertificate, bundle_name, certificate_name


def test_keys_are_never_shown() -> None:
    assert "hidden" not in repr(Certificate(name="certificate/a/b", chain=b"c", key=b"hidden"))
    assert "hidden" not in repr(WorkloadCertificate(chain=b"c", key=b"hidden", roots=b"r"))


def test_names_of_secrets_tell_kinds_and_namespaces_apart() -> None:
    names = [certificate_name("a", "b"), bundle_name("Secret", "a", "b"), bundle_name("ConfigMap", "a", "b")]
    assert names == ["certificate/a/b", "bundle/secret/a/b", "bundle/configmap/a/b"]
