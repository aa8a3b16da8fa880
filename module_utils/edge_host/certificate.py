"""The certificate of the chat API and its private key, replaced together.

Both are in a folder that is named by their content. The link secrets/tls names the folder, so that
replacing the link replaces both in one step: neither a reader nor a power cut finds one of them
with the other of another pair. The chat API sees it through its mount of the folder secrets.
"""

from __future__ import annotations

import hashlib
import shutil
import socket
import ssl
import time
from pathlib import Path
from typing import Dict

from .files import read_file, sync_folder, write_atomically
from .folders import secret_access, secret_folder_access
from .foreign import ForeignFolder, give

LINK = "tls"
_PREFIX = f"{LINK}-"
_NEW_LINK = f".{LINK}.new"
_PARTIAL_CHAIN = 0x80000
"""ssl.VERIFY_X509_PARTIAL_CHAIN of Python 3.10: a certificate is trusted without its issuers."""
_END = "-----END CERTIFICATE-----"
_POLL_SECONDS = 0.1
_CONNECT_SECONDS = 5.0


def install_certificate(secrets: Path, certificate: str, key: str, check: bool = False) -> bool:
    """Install a certificate (PEM, with its chain) and its key; returns whether that changes any.

    The chat API may read them, and nobody but root may write them. With `check` nothing is written.
    Raises OSError.
    """
    files = {"certificate.pem": certificate, "key.pem": key}
    text = "\0".join(files.values())
    folder = secrets / f"{_PREFIX}{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    if _is_installed(secrets, folder, files):
        return False
    if not check:
        _write(folder, files)
        _set_link(secrets, folder.name)
        _remove_others(secrets, folder)
    return True


def wait_until_served(
    certificate: str, port: int, seconds: float, address: str = "127.0.0.1"
) -> bool:
    """Wait until new connections to a port of this host get a certificate (PEM, with its chain).

    Returns whether they do. The wait ends after `seconds`, and at once where nothing listens or the
    port has no TLS.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=certificate.partition(_END)[0] + _END + "\n")
    context.verify_flags |= _PARTIAL_CHAIN
    # That very certificate is trusted, and no other: its names do not count here.
    context.check_hostname = False
    end = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection((address, port), _CONNECT_SECONDS) as connection:
                context.wrap_socket(connection).close()
            return True
        except ssl.SSLCertVerificationError:
            if time.monotonic() > end:
                return False
        except OSError:
            return False
        time.sleep(_POLL_SECONDS)


def _is_installed(secrets: Path, folder: Path, files: Dict[str, str]) -> bool:
    link = secrets / LINK
    if not link.is_symlink() or link.resolve() != folder.resolve():
        return False
    for name, text in files.items():
        found, access = read_file(folder / name), secret_access(name)
        expected = {
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "mode": f"{access.mode:04o}",
            "uid": access.owner,
            "gid": access.group,
        }
        if found != expected:
            return False
    return True


def _write(folder: Path, files: Dict[str, str]) -> None:
    if folder.is_symlink():
        folder.unlink()
    folder.mkdir(mode=0o700, exist_ok=True)
    # Root's own, as the folder that it is in.
    with ForeignFolder(folder, ()) as opened:
        give(opened.descriptor, *secret_folder_access())
    for name, text in files.items():
        owner, group, mode = secret_access(name)
        write_atomically(folder / name, text.encode(), folder, mode, owner=(owner, group))


def _set_link(secrets: Path, target: str) -> None:
    new = secrets / _NEW_LINK
    if new.is_symlink():
        new.unlink()
    new.symlink_to(target)
    link = secrets / LINK
    if link.is_dir() and not link.is_symlink():
        # Nobody but a person makes a folder there, and a link cannot replace it.
        shutil.rmtree(link)
    new.replace(link)
    sync_folder(secrets)


def _remove_others(secrets: Path, kept: Path) -> None:
    for path in secrets.glob(f"{_PREFIX}*"):
        if path.is_symlink():
            path.unlink()
        elif path != kept:
            shutil.rmtree(path)
