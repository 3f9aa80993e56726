"""The way out of this machine, as the environment names it: the proxy, and the certificates to trust."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from jobs.apps import is_loopback
from jobs.errors import refuse

if TYPE_CHECKING:
    from collections.abc import Mapping

_CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_MEND = "correct or unset it"


def check_way_out(base_url: str, environment: Mapping[str, str]) -> None:
    """Raise UserError where the environment names a proxy or certificates that cannot be used."""
    proxies(base_url, environment)
    named = trusted(environment)
    if isinstance(named, str):
        import ssl  # slow to import, and mostly not needed

        place = Path(named)
        try:
            ssl.create_default_context(
                cafile=None if place.is_dir() else named, capath=named if place.is_dir() else None
            )
        except (ssl.SSLError, OSError):
            raise refuse(f"names {named}, which holds no certificates", _names_trusted(environment), _MEND) from None


def proxies(base_url: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The proxy for `base_url`, by scheme as `requests` takes it; never for loopback, secret and all. Raises UserError."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    lower = {name.lower(): value for name, value in sorted(environment.items()) if value}
    proxy = lower.get("https_proxy") or lower.get("all_proxy", "")
    if not proxy or parts.scheme != "https" or is_loopback(host) or _is_direct(host, lower.get("no_proxy", "")):
        return {}
    if "://" in proxy and urlsplit(proxy).scheme not in {"http", "https"}:
        raise refuse("is no proxy that can be used", "HTTPS_PROXY", "name one that begins with http:// or https://")
    return {"https": proxy if "://" in proxy else f"http://{proxy}"}


def _is_direct(host: str, no_proxy: str) -> bool:
    names = [name.strip().lstrip(".").lower() for name in no_proxy.split(",") if name.strip()]
    return any(name in {"*", host} or host.endswith(f".{name}") for name in names)


def trusted(environment: Mapping[str, str]) -> bool | str:
    """Where the certificates to trust are: what the environment names, else (True) those that `requests` brings.

    Raises UserError where the named place cannot be read.
    """
    variable = _names_trusted(environment)
    if not variable:
        return True
    place = environment[variable]
    if not Path(place).exists() or not os.access(place, os.R_OK):
        raise refuse(f"names {place}, which cannot be read", variable, _MEND)
    return place


def _names_trusted(environment: Mapping[str, str]) -> str:
    return next((variable for variable in _CA_VARIABLES if environment.get(variable)), "")
