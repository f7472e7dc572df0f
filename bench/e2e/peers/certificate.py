"""An authority and a certificate for 127.0.0.1 made at run time, and the TLS 1.3 contexts of both roles.

ECDSA P-256 because its handshake is the cheapest that is common; no session tickets, because every row that counts
handshakes counts full ones.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

CA, CERT, KEY = "ca.pem", "cert.pem", "key.pem"
SUITE = "TLS_AES_256_GCM_SHA384"
VALID = datetime.timedelta(days=2)


def write(folder: Path) -> None:
    """Write the authority's certificate, the server's certificate and its key into `folder`; once per folder."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    if (folder / CA).exists():
        return
    now = datetime.datetime.now(datetime.UTC)

    def begin(subject: str, issuer: str, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (subject, issuer)]
        made = x509.CertificateBuilder().subject_name(names[0]).issuer_name(names[1]).public_key(key)
        made = made.serial_number(x509.random_serial_number())
        return made.not_valid_before(now - VALID).not_valid_after(now + VALID)

    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    no_uses = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    signs = x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **no_uses)
    own_id = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    root = (
        begin("bench authority", "bench authority", authority.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(signs, critical=True)
        .add_extension(own_id, critical=False)
        .sign(authority, hashes.SHA256())
    )
    hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    leaf = (
        begin("localhost", "bench authority", key.public_key())
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own_id), critical=False)
        .sign(authority, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / CA).write_bytes(root.public_bytes(pem))
    (folder / CERT).write_bytes(leaf.public_bytes(pem))
    (folder / KEY).write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


def server_context(folder: Path) -> ssl.SSLContext:
    """Return the context of the listening side."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.load_cert_chain(folder / CERT, folder / KEY)
    return context


def client_context(folder: Path) -> ssl.SSLContext:
    """Return the context of the dialling side; it verifies certificate and name."""
    context = ssl.create_default_context(cafile=str(folder / CA))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def check_suite(cipher: tuple[str, str, int] | None) -> None:
    """Refuse a session with another cipher than the one all encrypted rows are compared with.

    Raises:
        RuntimeError: another suite was negotiated.
    """
    if cipher is None or cipher[0] != SUITE:
        raise RuntimeError(f"{SUITE} expected, negotiated {cipher}")
