"""Silence for libraries that talk past us: their bars, their advice and their repeated warnings.

Called before a stage trains, since it imports the libraries. With ``--debug`` nothing is silenced.
"""

from __future__ import annotations

import logging
import os
import warnings


def hush() -> None:
    """Keep the libraries' own output off the terminal; errors still raise."""
    if os.environ.get("PLUMBLINE_DEBUG") == "1":
        return
    # Read at import: says that a kernel could not be fetched for bitsandbytes, which is harmless.
    for name in ("bitsandbytes", "bitsandbytes.cextension", "bitsandbytes.backends.cpu.ops"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import datasets
    import transformers

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity_error()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in ("trl", "accelerate", "peft", "torch.utils.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(trl|peft|transformers|torch|accelerate)(\.|$)")
