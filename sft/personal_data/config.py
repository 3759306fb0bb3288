"""Which personal data are masked, and whether they can be brought back."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any

from pydantic import field_validator

from plumbline.config import Config, only_when
from sft.personal_data.table import RECOGNIZERS


class PersonalDataConfig(Config):
    """Personal data in texts: each is replaced by its kind and a number, such as [EMAIL_1]."""

    kinds: tuple[Annotated[str, RECOGNIZERS], ...] = tuple(RECOGNIZERS)
    """Kinds to mask, or your own function by its dotted path: it gets a text and the regions, and
    yields start and end of each place."""
    names: Path | None = None
    """A file with one name a line; these are masked as [NAME_1]. Null: no names are looked for."""
    regions: tuple[str, ...] = only_when(
        lambda config: any(RECOGNIZERS[kind].reads_regions for kind in config.kinds),
        f"{RECOGNIZERS.where(lambda row: row.reads_regions)} or your own function among kinds",
        ("US", "GB", "CN"),
    )
    """Countries, by two letters, whose telephone numbers are found without their international
    prefix."""
    reversible: bool = False
    """Keep what was masked beside each row, encrypted under the data key (AES-256-GCM), so that it
    can be brought back with the key. False: it is gone."""

    def identity(self) -> dict[str, Any]:
        """Return the values that determine the result, the names among them."""
        values = super().identity()
        if self.names is not None:
            values["names"] = hashlib.sha256(self.names.read_bytes()).hexdigest()[:16]
        return values

    @field_validator("regions")
    @classmethod
    def _are_countries(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for region in value:
            if len(region) != 2 or not (region.isascii() and region.isupper()):
                raise ValueError(
                    f"regions has {region!r}; name countries by two capital letters, as in US"
                )
        return value
