"""Silences libraries on the terminal: their progress bars, their advice, repeated warnings.

Called before a stage trains, since it imports the libraries. With ``--debug`` nothing is silenced.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def silence_imports() -> None:
    """Keep what libraries say as they are imported off the terminal. Imports nothing itself."""
    # bitsandbytes says that it could not fetch a kernel, which is harmless.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    # DeepSpeed, which accelerate imports where it is installed, says which device it chose. It sets
    # the level of its logger itself.
    logging.getLogger("DeepSpeed").addFilter(_is_error)


def silence_libraries() -> None:
    """Keep the libraries' own output off the terminal; errors still raise."""
    if os.environ.get("PLUMBLINE_DEBUG") == "1":
        return
    silence_imports()
    os.environ.setdefault("TQDM_DISABLE", "1")
    import datasets
    import tqdm
    import transformers

    # Its own lock is a semaphore of the system's, which a killed stage would leave behind.
    tqdm.tqdm.set_lock(threading.RLock())
    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in ("trl", "accelerate", "peft", "torch.utils.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(trl|peft|transformers|torch|accelerate)(\.|$)")
