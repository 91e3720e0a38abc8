"""Makes a private certificate authority, whose certificates the registry shows."""

import subprocess
from collections.abc import Sequence
from pathlib import Path


class Authority:
    """Issues TLS certificates under a root of its own, which lives in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate = folder / "ca.crt"
        self._key = folder / "ca.key"
        folder.mkdir(parents=True, exist_ok=True)
        if not self.certificate.exists():
            self._openssl("req", "-x509", "-subj", "/CN=EKS image prefetch local cloud", "-days", "30",
                          *self._new_key(self._key), "-out", self.certificate)  # fmt: skip

    def issue(self, name: str, hosts: Sequence[str], addresses: Sequence[str]) -> tuple[Path, Path]:
        """Issues a server certificate and returns its file and its key's."""
        certificate, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        names = ",".join([*(f"DNS:{host}" for host in hosts), *(f"IP:{address}" for address in addresses)])
        self._openssl("req", "-x509", "-subj", f"/CN={name}", "-days", "30", "-addext", f"subjectAltName={names}",
                      "-addext", "basicConstraints=critical,CA:FALSE", *self._new_key(key), "-out", certificate,
                      "-CA", self.certificate, "-CAkey", self._key)  # fmt: skip
        return certificate, key

    @staticmethod
    def _new_key(file: Path) -> list[str | Path]:
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", file]

    @staticmethod
    def _openssl(*arguments: str | Path) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True)
