"""The way out of this machine, as the environment gives it: the proxy, and the certificates to trust."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from jobs.config.apps import is_loopback, port_of
from jobs.core.errors import refuse

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_TODO = "correct or unset it"


@dataclass(frozen=True, slots=True)
class Proxy:
    """The proxy to go through, from the environment's `variable`. `login` is its user and password, or empty."""

    scheme: str
    host: str
    port: int
    variable: str
    login: str = field(default="", repr=False)

    @property
    def shown(self) -> str:
        """Its address without the password, for a person."""
        return f"{self.host}:{self.port}"


def check_way_out(base_url: str, environment: Mapping[str, str]) -> None:
    """Raise UserError if the environment names a proxy or certificates that cannot be used."""
    proxy_for(base_url, environment)
    if variable := _names_trusted(environment):
        try:
            certificates(environment)
        except OSError:  # An error of TLS is one too.
            raise refuse(f"names {environment[variable]}, which holds no certificates", variable, _TODO) from None


def proxy_for(base_url: str, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy for `base_url`, or None. Loopback never goes through one. Raises UserError if a variable does not
    name a proxy.
    """
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    lower = {name.lower(): (name, value) for name, value in sorted(environment.items()) if value}
    variable, named = lower.get("https_proxy") or lower.get("all_proxy") or ("", "")
    no_proxy = lower.get("no_proxy", ("", ""))[1]
    if not named or parts.scheme != "https" or is_loopback(host) or _is_direct(host, no_proxy):
        return None
    try:
        proxy = urlsplit(named if "://" in named else f"http://{named}")
        port = {"http": 80, "https": 443}[proxy.scheme]
        port = port_of(proxy) or port
    except (ValueError, KeyError):
        proxy, port = urlsplit(""), 0
    if not proxy.hostname:
        todo = "name one like http://proxy.example:3128, or with https://"
        raise refuse("does not name a proxy that can be used", variable, todo)
    login = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}" if proxy.username else ""
    return Proxy(proxy.scheme, proxy.hostname, port, variable, login)


def _is_direct(host: str, no_proxy: str) -> bool:
    names = [name.strip().lstrip(".").lower() for name in no_proxy.split(",") if name.strip()]
    return any(name in {"*", host} or host.endswith(f".{name}") for name in names)


def certificates(environment: Mapping[str, str]) -> ssl.SSLContext:
    """The TLS context of connections: every check, and the certificates to trust. They are at the place that the environment
    names, otherwise those that `requests` brings. Raises UserError if that place cannot be read, and OSError if it holds none.
    """
    from requests.certs import where  # type: ignore[attr-defined]  # its types leave it out
    from urllib3.util import create_urllib3_context

    variable = _names_trusted(environment)
    place = environment[variable] if variable else where()
    if variable and not (Path(place).exists() and os.access(place, os.R_OK)):
        raise refuse(f"names {place}, which cannot be read", variable, _TODO)
    context = create_urllib3_context()
    is_folder = Path(place).is_dir()
    context.load_verify_locations(cafile=None if is_folder else place, capath=place if is_folder else None)
    return context


def _names_trusted(environment: Mapping[str, str]) -> str:
    return next((variable for variable in _CA_VARIABLES if environment.get(variable)), "")
