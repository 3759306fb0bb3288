"""Who uses a vLLM server: several trainings with adapters, or one that replaces its weights."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
import weakref
from pathlib import Path
from typing import Any

from plumbline.errors import BusyError

#: Where vLLM's workers are told something, and where its cache of prefixes is dropped. Both are
#: there with VLLM_SERVER_DEV_MODE=1.
RELOAD, FORGET = "/collective_rpc", "/reset_prefix_cache"


def weights_from(place: Path | str) -> tuple[str, dict[str, Any]]:
    """Return the request by which a server takes the weights of a folder in place of its own."""
    return RELOAD, {"method": "reload_weights", "kwargs": {"weights_path": str(place)}}


class ServerUse:
    """The use of a server by a training on this machine, until this object is gone.

    ``alone``: nobody else may use it meanwhile, and at the end it gets back the weights from
    ``root``. Raises `BusyError` where another training's use does not allow it.
    """

    def __init__(self, url: str, root: str, *, alone: bool) -> None:
        name = hashlib.sha256(url.encode()).hexdigest()[:16]
        file = Path(tempfile.gettempdir()) / f"plumbline-rollouts-{os.getuid()}-{name}.lock"
        held = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(held, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(held)
            raise BusyError(
                f"Another training uses the server at {url}, and one of the two replaces all of "
                "its weights. Wait for the other's end, or start a second server (plumbline "
                "rollouts up --port N)."
            ) from None
        weakref.finalize(self, _end, held, url if alone else None, root)


def _end(held: int, url: str | None, root: str) -> None:
    """Give the server its own weights back, and let others use it."""
    import httpx

    # Where it cannot read a folder, vLLM loses the weights that it has.
    if url is not None and (Path(root).is_dir() or not Path(root).is_absolute()):
        path, body = weights_from(root)
        with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=url, timeout=60) as client:
            client.post(path, json=body)
            client.post(FORGET, json={})
    os.close(held)
