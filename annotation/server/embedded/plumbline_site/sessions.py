"""Sign-ins that end when a person signs out or gets a new password or key.

An Argilla token is valid for a day, also after the person's password changed or the account was
deleted, and Argilla's API cannot give anyone a new key. When an account is reset, its old access
must end.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from typing import Any
from uuid import UUID

from argilla_server.api.policies.v1 import UserPolicy, authorize
from argilla_server.api.schemas.v1.users import User as UserSchema
from argilla_server.contexts import accounts
from argilla_server.database import AsyncSessionLocal, get_async_db
from argilla_server.errors import UnauthorizedError
from argilla_server.models import User
from argilla_server.security import auth
from argilla_server.security.authentication.db import BearerTokenAuthenticationBackend
from argilla_server.security.authentication.jwt import JWT
from argilla_server.security.authentication.provider import AuthenticationProvider
from argilla_server.security.authentication.userinfo import UserInfo
from fastapi import APIRouter, Depends, Request, Response, Security
from sqlalchemy import text
from starlette.authentication import AuthCredentials

from .asgi import Headers

#: Tokens that were signed out, by their hashes, until they would have ended anyway.
STATEMENTS = (
    """
    CREATE TABLE IF NOT EXISTS plumbline_signed_out (
      token_hash CHAR(64) PRIMARY KEY,
      expires INTEGER NOT NULL
    )
    """,
)

router = APIRouter()


def install(api: Any) -> None:
    """Replace Argilla's sign-in, and add the routes that sign out and change a key."""
    accounts.authenticate_user = _authenticate_user
    accounts.generate_user_token = _new_token
    AuthenticationProvider.backends = [
        _CurrentTokens() if isinstance(backend, BearerTokenAuthenticationBackend) else backend
        for backend in AuthenticationProvider.backends
    ]
    api.include_router(router)


async def role_of(headers: Headers) -> str | None:
    """Return the role of a request's sender, or None where it is not signed in."""
    async with AsyncSessionLocal() as db:
        user = None
        key = headers.get(b"x-argilla-api-key", b"").decode("latin-1")
        scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if key:
            user = await accounts.get_user_by_api_key(db, key)
        elif scheme.lower() == "bearer":
            user = await _user_of(db, token.strip())
        return None if user is None else str(getattr(user.role, "value", user.role))


def _binding(user: Any) -> str:
    """Return what a token is bound to. It changes with the password and with the key."""
    access = f"{user.id}:{user.password_hash}:{user.api_key}"
    return hmac.new(JWT.secret.encode(), access.encode(), hashlib.sha256).hexdigest()


async def _user_of(db: Any, token: str) -> Any:
    """Return the person whom a token signs in, or None."""
    try:
        claims = JWT.decode(token)
    except UnauthorizedError:
        return None
    user = await accounts.get_user_by_username(db, str(claims.get("username")))
    if user is None or not hmac.compare_digest(str(claims.get("access")), _binding(user)):
        return None
    return None if await _is_signed_out(db, token) else user


class _CurrentTokens(BearerTokenAuthenticationBackend):  # type: ignore[misc, unused-ignore]
    """Accepts a token until its person signs out or gets a new password or key."""

    async def authenticate(self, request: Request) -> Any:
        """Return who sent a request, or None."""
        credentials = await self.scheme(request)
        user = credentials and await _user_of(request.state.db, credentials.credentials)
        if not user:
            return None
        return AuthCredentials(), UserInfo(
            username=user.username, name=user.first_name, role=user.role, identity=str(user.id)
        )


def _new_token(user: Any) -> str:
    return JWT.create(  # type: ignore[no-any-return, unused-ignore]
        UserInfo(
            identity=str(user.id),
            name=user.first_name,
            username=user.username,
            role=user.role,
            access=_binding(user),
            session=secrets.token_hex(8),  # two sign-ins are two tokens, also in one second
        )
    )


async def _authenticate_user(db: Any, username: str, password: str) -> Any:
    user = await accounts.get_user_by_username(db, username)
    stored = user.password_hash if user else accounts._DUMMY_HASH  # as slow for an unknown name
    # In a thread: a check takes a quarter of a second, and everybody would wait.
    is_right = await asyncio.to_thread(accounts.verify_password, password, stored)
    return user if user and is_right else None


async def _is_signed_out(db: Any, token: str) -> bool:
    statement = text("SELECT 1 FROM plumbline_signed_out WHERE token_hash = :hash")
    return (await db.execute(statement, {"hash": _hash(token)})).first() is not None


def _hash(token: str) -> str:
    # Of what was signed alone: the same signature can be spelt in several ways.
    return hashlib.sha256(token.rpartition(".")[0].encode()).hexdigest()


@router.post("/sign-out", status_code=204)
async def sign_out(
    request: Request,
    db: Any = Depends(get_async_db),  # noqa: B008 - FastAPI's own way
    _: Any = Security(auth.get_current_user),  # noqa: B008
) -> Response:
    """End the sign-in that sends this. An API key stays valid."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        now = int(time.time())
        await db.execute(
            text("DELETE FROM plumbline_signed_out WHERE expires < :now"), {"now": now}
        )
        await db.execute(
            text(
                "INSERT INTO plumbline_signed_out VALUES (:hash, :expires) ON CONFLICT DO NOTHING"
            ),
            {"hash": _hash(token.strip()), "expires": now + JWT.expires},
        )
        await db.commit()
    return Response(status_code=204)


@router.post("/users/{user_id}/api-key", response_model=UserSchema)
async def change_key(
    user_id: UUID,
    db: Any = Depends(get_async_db),  # noqa: B008
    current_user: Any = Security(auth.get_current_user),  # noqa: B008
) -> Any:
    """Give a person a new API key."""
    await authorize(current_user, UserPolicy.update)
    user = await User.get_or_raise(db, user_id)
    return await user.update(db, api_key=secrets.token_urlsafe(80))
