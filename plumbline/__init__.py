"""Plumbline: from a base model to an aligned policy, with the evidence for how it got there.

This package is what every stage shares. It knows nothing of the stages.
"""

from plumbline import privacy as _privacy

__version__ = "0.1.0"

# Before anything else can import a library that reports home.
_privacy.apply()
