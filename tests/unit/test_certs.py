"""The scripts for throw-away CAs write what they say, and git sees none of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from meshgw.cluster.serving import GIVEN_SECRET

CERTS = Path(__file__).parents[2] / "certs"
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl")


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    folder = tmp_path / "certs"
    shutil.copytree(CERTS, folder, ignore=shutil.ignore_patterns("*.pem", "*.key", "*.srl", "mesh", "xds"))
    return folder


def run(certs: Path, script: str, *arguments: str) -> str:
    done = subprocess.run([certs / script, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def names(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return found.get_values_for_type(x509.DNSName)


def signed(certificate: Path, key: Path, by: Path) -> None:
    """The certificate is of that key, and the other one signed it."""
    leaf = load(certificate)
    leaf.verify_directly_issued_by(load(by))
    private = load_pem_private_key(key.read_bytes(), None)
    assert private.public_key() == leaf.public_key()
    assert key.stat().st_mode & 0o077 == 0


def test_a_listeners_certificate(certs: Path) -> None:
    run(certs, "make-dev-ca.sh", "a.test", "b.test")
    signed(certs / "a.test.pem", certs / "a.test.key", certs / "dev-ca.pem")
    assert names(load(certs / "a.test.pem")) == ["a.test", "b.test"]


def test_a_mesh_ca_as_istio_has_it(certs: Path) -> None:
    said = run(certs, "make-mesh-ca.sh")
    mesh = certs / "mesh"
    signed(mesh / "ca-cert.pem", mesh / "ca-key.pem", mesh / "root-cert.pem")
    constraints = load(mesh / "ca-cert.pem").extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 0)
    chain = x509.load_pem_x509_certificates((mesh / "cert-chain.pem").read_bytes())
    assert chain == [load(mesh / "ca-cert.pem"), load(mesh / "root-cert.pem")]
    assert "create secret generic cacerts" in said
    before = (mesh / "root-cert.pem").read_bytes()
    run(certs, "make-mesh-ca.sh")
    assert (mesh / "root-cert.pem").read_bytes() == before


def test_a_certificate_of_the_xds_server(certs: Path) -> None:
    said = run(certs, "make-xds-ca.sh", "gateways")
    xds = certs / "xds"
    signed(xds / "tls.crt", xds / "tls.key", xds / "ca.crt")
    assert names(load(xds / "tls.crt"))[0] == "meshgw.gateways.svc"
    assert f"secret generic {GIVEN_SECRET}" in said


def test_what_the_scripts_write_is_ignored(certs: Path) -> None:
    root = CERTS.parent
    for path in ("certs/dev-ca.key", "certs/a.pem", "certs/dev-ca.srl", "certs/mesh/ca-key.pem", "certs/xds/tls.key"):
        assert subprocess.run(["git", "check-ignore", "-q", path], cwd=root, check=False).returncode == 0, path


def test_samples_for_cert_manager_name_what_is_there() -> None:
    documents = list(yaml.safe_load_all((CERTS / "cert-manager" / "xds.yaml").read_text()))
    issuers = {found["metadata"]["name"] for found in documents if found["kind"] == "Issuer"}
    certificates = [found["spec"] for found in documents if found["kind"] == "Certificate"]
    assert {spec["issuerRef"]["name"] for spec in certificates} == issuers
    assert GIVEN_SECRET in {spec["secretName"] for spec in certificates}
