"""What the process server imports once, so that no stage waits for it. Imports only.

The garbage collector rests meanwhile, and leaves alone what was imported: a stage that collects
would otherwise walk through a million objects that never go, and copy the memory that it shares.
"""

import contextlib
import gc
import json
import os
import sys

from plumbline.quiet import silence_libraries
from plumbline.runs.processes import PATH_OF_SERVER

gc.disable()
if PATH_OF_SERVER in os.environ:
    # What the server imports after this is ours. By itself it would look in the folder where it was
    # started first, and a user may have a file `reward.py` there.
    sys.path[:] = json.loads(os.environ.pop(PATH_OF_SERVER))
with contextlib.suppress(ImportError):  # a stage says which package it misses
    silence_libraries()
    import altair  # noqa: F401
    import pandas  # noqa: F401
    import peft  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch
    from transformers import AutoModelForCausalLM  # noqa: F401
    from trl import SFTTrainer  # noqa: F401

    if torch.version.cuda is None:  # else it would start CUDA, which then no stage could use
        import deepspeed  # noqa: F401
gc.freeze()
gc.enable()
