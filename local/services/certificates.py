"""Makes the certificates by which the servers here speak TLS."""

from __future__ import annotations

import subprocess
from pathlib import Path

from local.services.processes import LOOPBACK, program

CERTIFIED = f"DNS:localhost,IP:{LOOPBACK}"  # as openssl writes it


def make_certificates(home: Path, names: str) -> tuple[Path, Path]:
    """Makes a CA of its own in a folder, and a server's certificate that it signs.

    Args:
        home: The folder.
        names: What the certificate is for, as openssl writes it (`DNS:localhost,IP:127.0.0.1`).

    Returns:
        The files of the CA's certificate, and of the server's with its key.
    """
    ca, server = home / "ca.pem", home / "server.pem"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")  # keys of RSA take up to a second
    request = [program("openssl", "openssl"), "req", "-x509", *curve, "-nodes", "-days", "30"]
    key = home / "ca.key"
    signed = ["-CA", str(ca), "-CAkey", str(key), "-addext", f"subjectAltName={names}"]
    for path, keys, name, options in ((ca, key, "test CA", []), (server, server, "test server", signed)):
        command = [*request, "-subj", f"/CN={name}", "-keyout", str(keys), "-out", str(path), *options]
        subprocess.run(command, capture_output=True, check=True)  # noqa: S603
    return ca, server
