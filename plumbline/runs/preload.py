"""What the process server imports once, so that no stage waits for it. Imports only.

The garbage collector rests meanwhile, and leaves alone what was imported: a stage that collects
would otherwise walk through a million objects that never go, and copy the memory that it shares.
"""

import contextlib
import gc

from plumbline.quiet import silence_libraries

gc.disable()
with contextlib.suppress(ImportError):  # a stage says which package it misses
    silence_libraries()
    import altair  # noqa: F401
    import pandas  # noqa: F401
    import peft  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch  # noqa: F401
    from transformers import AutoModelForCausalLM  # noqa: F401
    from trl import SFTTrainer  # noqa: F401
gc.freeze()
gc.enable()
