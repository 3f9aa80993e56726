"""The OAuth grants, from Authlib, with answers in HighLevel's shape."""

from __future__ import annotations

import os
import secrets
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant, RefreshTokenGrant

from jobs.sandbox import tokens

if TYPE_CHECKING:
    from flask import Flask

    from jobs.sandbox.world import World


@dataclass(frozen=True)
class Client(ClientMixin):  # type: ignore[misc]
    """A registered app."""

    client_id: str
    client_secret: str

    def get_client_id(self) -> str:
        return self.client_id

    def check_client_secret(self, client_secret: str) -> bool:
        return secrets.compare_digest(self.client_secret, client_secret)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return (method, endpoint) == ("client_secret_post", "token")

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in {"authorization_code", "refresh_token"}

    def get_allowed_scope(self, scope: str) -> str:
        return scope


@dataclass(frozen=True)
class Code:
    """An authorization code that was handed out."""

    client_id: str
    account_id: str
    level: str
    expires: float

    def get_redirect_uri(self) -> str:
        return ""

    def get_scope(self) -> str:
        return tokens.SCOPES[self.level]


@dataclass
class Codes:
    """The valid codes, every code that was ever sent, and the issued pairs. A code works once.

    `issued` holds (account id, refresh token), oldest first.
    """

    live: dict[str, Code] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    issued: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def hand_out(self, code: Code) -> str:
        """A new code."""
        value = secrets.token_hex(20)
        with self.lock:
            self.live[value] = code
        return value

    def spend(self, value: str) -> Code | None:
        """The code, or None if it is not valid. It does not work again after this."""
        with self.lock:
            self.sent.append(value)
            code = self.live.pop(value, None)
        return code if code and code.expires > time.monotonic() else None


@dataclass(frozen=True)
class Old:
    """A valid refresh token, in the form that the refresh grant needs."""

    token: str
    client_id: str
    account_id: str
    level: str

    def check_client(self, client: Client) -> bool:
        return self.client_id == client.client_id

    def get_scope(self) -> str:
        return ""


def _refresh_grant(refreshes: tokens.Refreshes) -> type[RefreshTokenGrant]:
    class Refresh(RefreshTokenGrant):  # type: ignore[misc]
        TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_post",)

        def authenticate_refresh_token(self, refresh_token: str) -> Old | None:
            claims = tokens.read(refresh_token, "refresh")
            if claims is None or not refreshes.lives(refresh_token):
                return None
            return Old(refresh_token, claims["sourceId"], claims["authClassId"], claims["authClass"])

        def authenticate_user(self, refresh_token: Old) -> Old:
            return refresh_token

        def revoke_old_credential(self, refresh_token: Old) -> None:
            """Do nothing: the old token is spent when the new pair is saved."""

    return Refresh


def server_for(app: Flask, world: World, codes: Codes, refreshes: tokens.Refreshes) -> AuthorizationServer:
    """Authlib's server over the clients of `world`."""
    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # Loopback only, and Authlib has no other switch for it.
    clients = {client_id: Client(client_id, secret) for client_id, secret in world.clients.items()}

    class Grant(AuthorizationCodeGrant):  # type: ignore[misc]
        TOKEN_ENDPOINT_AUTH_METHODS = ("client_secret_post",)

        def query_authorization_code(self, code: str, client: Client) -> Code | None:
            found = codes.spend(code)
            return found if found and found.client_id == client.client_id else None

        def delete_authorization_code(self, authorization_code: Code) -> None:
            """Do nothing: the code is spent when it is looked up."""

        def authenticate_user(self, authorization_code: Code) -> Code:
            return authorization_code

    def keep(token: dict[str, Any], request: Any) -> None:
        old: Old | None = request.refresh_token
        granted: Code | Old = old or request.authorization_code
        company = world.company_of(granted.account_id) if granted.level == "Location" else granted.account_id
        token.update(tokens.pair(granted.level, granted.account_id, granted.client_id, company))
        if old:
            refreshes.spend(old.token, old.client_id, dict(token))
        codes.issued.append((granted.account_id, token["refresh_token"]))

    app.config["OAUTH2_REFRESH_TOKEN_GENERATOR"] = lambda **_: ""
    server = AuthorizationServer(app, query_client=clients.get, save_token=keep)
    server.register_grant(Grant)
    server.register_grant(_refresh_grant(refreshes))
    return server
