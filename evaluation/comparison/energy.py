"""The energy of a training: measured where the machine counts it, otherwise an estimate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from plumbline.runs.artifacts import Manifest

#: Watts of one processor core at work, for the estimate: of the order of a server's.
WATTS_PER_CORE = 10.0
JOULES_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Energy:
    """Energy of a training run."""

    kwh: float
    is_measured: bool


def energy_of(manifest: Manifest) -> Energy | None:
    """Return the energy of the making of an artefact; None where nothing is known of it.

    A stage that was resumed counts at the power of its last attempt.
    """
    machine = manifest.machine
    counted = machine.get("energy")
    if isinstance(counted, Mapping) and counted.get("seconds"):
        power = counted["joules"] / counted["seconds"]
        # On a GPU machine, a counter of the processors alone says little.
        whole = machine.get("device", "cpu") == "cpu" or "GPUs" in counted.get("of", ())
        if whole:
            return Energy(power * manifest.seconds / JOULES_PER_KWH, True)
    if machine.get("device", "cpu") != "cpu":
        return None
    busy = machine.get("processor_seconds")
    if busy is None:  # an older run
        busy = manifest.seconds * machine.get("threads", 1)
    return Energy(busy * WATTS_PER_CORE / JOULES_PER_KWH, False)
