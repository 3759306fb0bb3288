"""Who uses a vLLM server: several trainings with adapters, or one that replaces its weights."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plumbline.errors import BusyError
from plumbline.proxies import client_options

#: Where vLLM's workers are told something, and where its cache of prefixes is dropped. Both are
#: there with VLLM_SERVER_DEV_MODE=1, and so are the next two.
RELOAD, FORGET = "/collective_rpc", "/reset_prefix_cache"
#: Where weights get a label, and where it is read. Versions before 0.32 may lack both.
LABEL, LABELED = "/update_weight_version", "/weight_info"
#: Where a server says how it was started, also with VLLM_SERVER_DEV_MODE=1.
ABOUT = "/server_info?config_format=json"
UNLOAD = "/v1/unload_lora_adapter"
#: Requests that change nothing where the server does not know what they are about.
MAY_BE_UNKNOWN = frozenset({ABOUT, LABEL, LABELED, UNLOAD})
#: The label of a server's own weights.
_OWN = "default"

Request = tuple[str, dict[str, Any]]


def weights_from(place: Path | str) -> Request:
    """Return the request by which a server takes the weights of a folder in place of its own."""
    return RELOAD, {"method": "reload_weights", "kwargs": {"weights_path": str(place)}}


def label(name: str = _OWN) -> Request:
    """Return the request that labels the weights which a server has now."""
    return LABEL, {"new_version": name}


def label_of_others(info: Mapping[str, Any]) -> str | None:
    """Return the label of another training's weights, or None; ``info`` answers `LABELED`."""
    name = str(info.get("weight_version") or _OWN)
    return None if name == _OWN else name


def unload(adapter: str) -> Request:
    """Return the request by which a server gives up an adapter."""
    return UNLOAD, {"lora_name": adapter}


def own_weights(root: str) -> list[Request]:
    """Return the requests by which a server has its own weights again."""
    # Where it cannot read a folder, vLLM loses the weights that it has.
    if Path(root).is_absolute() and not Path(root).is_dir():
        return []
    return [weights_from(root), (FORGET, {}), label()]


class ServerUse:
    """The use of a server by a training on this machine, until this object is gone.

    ``alone``: nobody else may use it meanwhile. Raises `BusyError` where another training's use
    does not allow it.
    """

    def __init__(self, url: str, *, alone: bool) -> None:
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
        self.at_end: list[Request] = []
        """What the server is asked for at the end, so that it is as it was before."""
        weakref.finalize(self, _end, held, url, self.at_end)


def _end(held: int, url: str, requests: list[Request]) -> None:
    """Ask the server for what comes at the end, as far as it is there, and let others use it."""
    import httpx

    options = client_options(url)
    with (
        contextlib.suppress(httpx.HTTPError),
        httpx.Client(base_url=url, timeout=60, **options) as client,
    ):
        for path, body in requests:
            client.post(path, json=body)
    os.close(held)
