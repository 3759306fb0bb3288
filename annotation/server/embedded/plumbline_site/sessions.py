"""Sign-ins that end when a person's password is changed, and keys that can be changed.

Argilla's tokens last a day whatever happens to the person, and its API has no way to give anyone a
new key. Whoever resets a person's access wants the old access gone.
"""

from __future__ import annotations

import calendar
from typing import Any
from uuid import UUID


def install(app: Any) -> None:
    """Make tokens end with the password, and add the route that changes a person's key."""
    import secrets
    from datetime import datetime

    from argilla_server.api.policies.v1 import UserPolicy, authorize
    from argilla_server.api.schemas.v1.users import User as UserSchema
    from argilla_server.contexts import accounts
    from argilla_server.database import get_async_db
    from argilla_server.models import User
    from argilla_server.security import auth
    from argilla_server.security.authentication.db import BearerTokenAuthenticationBackend
    from argilla_server.security.authentication.jwt import JWT
    from argilla_server.security.authentication.provider import AuthenticationProvider
    from fastapi import APIRouter, Depends, Request, Security

    class UntilChanged(BearerTokenAuthenticationBackend):
        """Bearer tokens, unless they are older than the person's last change."""

        async def authenticate(self, request: Request) -> Any:
            found = await super().authenticate(request)
            if found is None:
                return None
            credentials = await self.scheme(request)
            issued = JWT.decode(credentials.credentials).get("iat")
            user = await accounts.get_user_by_username(request.state.db, found[1].username)
            changed = calendar.timegm(user.updated_at.timetuple()) if user else None
            # Times are in whole seconds in a token: one made in the second of the change is good.
            return found if issued and changed is not None and issued >= changed else None

    encode = JWT.encode
    JWT.encode = classmethod(  # type: ignore[method-assign]
        lambda cls, data: encode({**data, "iat": datetime.utcnow()})
    )
    AuthenticationProvider.backends = [
        UntilChanged() if isinstance(backend, BearerTokenAuthenticationBackend) else backend
        for backend in AuthenticationProvider.backends
    ]

    router = APIRouter()

    @router.post("/users/{user_id}/api-key", response_model=UserSchema)
    async def change_key(
        user_id: UUID,
        db: Any = Depends(get_async_db),
        current_user: User = Security(auth.get_current_user),
    ) -> Any:
        await authorize(current_user, UserPolicy.update)
        user = await User.get_or_raise(db, user_id)
        return await user.update(db, api_key=secrets.token_urlsafe(80))

    app.include_router(router)
