"""What the process server imports once, so that no stage waits for it. Imports only."""

import contextlib

from plumbline.quiet import silence_libraries

with contextlib.suppress(ImportError):  # a stage says which package it misses
    silence_libraries()
    import altair  # noqa: F401
    import pandas  # noqa: F401
    import peft  # noqa: F401
    import scipy.stats  # noqa: F401
    import torch  # noqa: F401
    from transformers import AutoModelForCausalLM  # noqa: F401
    from trl import DPOTrainer, RewardTrainer, SFTTrainer  # noqa: F401
