"""Sign-ins that end when a person's password or key is changed, and keys that can be changed.

Argilla's tokens last a day even if the person is removed, and its API cannot give anyone a new
key. Resetting a person's access must end the old access.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from typing import Any
from uuid import UUID


def install(api: Any) -> None:
    """Make tokens end with the password, and add the route that changes a person's key."""
    import secrets

    from argilla_server.api.policies.v1 import UserPolicy, authorize
    from argilla_server.api.schemas.v1.users import User as UserSchema
    from argilla_server.contexts import accounts
    from argilla_server.database import get_async_db
    from argilla_server.models import User
    from argilla_server.security import auth
    from argilla_server.security.authentication.db import BearerTokenAuthenticationBackend
    from argilla_server.security.authentication.jwt import JWT
    from argilla_server.security.authentication.provider import AuthenticationProvider
    from argilla_server.security.authentication.userinfo import UserInfo
    from fastapi import APIRouter, Depends, Request, Security
    from starlette.authentication import AuthCredentials

    def of_now(user: User) -> str:
        """Return what a token is bound to: another after a change of password or key."""
        access = f"{user.id}:{user.password_hash}:{user.api_key}"
        return hmac.new(JWT.secret.encode(), access.encode(), hashlib.sha256).hexdigest()

    class UntilChanged(BearerTokenAuthenticationBackend):
        """Bearer tokens, unless the password or key has changed since."""

        async def authenticate(self, request: Request) -> Any:
            credentials = await self.scheme(request)
            if not credentials:
                return None
            token = JWT.decode(credentials.credentials)
            user = await accounts.get_user_by_username(request.state.db, str(token.get("username")))
            if user is None or not hmac.compare_digest(str(token.get("access")), of_now(user)):
                return None
            return AuthCredentials(), UserInfo(
                username=user.username, name=user.first_name, role=user.role, identity=str(user.id)
            )

    def new_token(user: User) -> str:
        return JWT.create(  # type: ignore[no-any-return, unused-ignore]
            UserInfo(
                identity=str(user.id),
                name=user.first_name,
                username=user.username,
                role=user.role,
                access=of_now(user),
            )
        )

    async def authenticate_user(db: Any, username: str, password: str) -> Any:
        user = await accounts.get_user_by_username(db, username)
        stored = user.password_hash if user else accounts._DUMMY_HASH  # as slow for nobody's name
        # In a thread: a check takes a quarter of a second, and everybody would wait.
        is_right = await asyncio.to_thread(accounts.verify_password, password, stored)
        return user if user and is_right else None

    accounts.authenticate_user = authenticate_user
    accounts.generate_user_token = new_token
    AuthenticationProvider.backends = [
        UntilChanged() if isinstance(backend, BearerTokenAuthenticationBackend) else backend
        for backend in AuthenticationProvider.backends
    ]

    router = APIRouter()

    @router.post("/users/{user_id}/api-key", response_model=UserSchema)
    async def change_key(
        user_id: UUID,
        db: Any = Depends(get_async_db),  # noqa: B008 - how FastAPI is told
        current_user: User = Security(auth.get_current_user),  # noqa: B008
    ) -> Any:
        await authorize(current_user, UserPolicy.update)
        user = await User.get_or_raise(db, user_id)
        return await user.update(db, api_key=secrets.token_urlsafe(80))

    api.include_router(router)
