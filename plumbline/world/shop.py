"""The shop: a small hardware store whose help desk the policy is to run.

Everything that can be true or false in the embedded world is decided here, from the data seed.
"""

from __future__ import annotations

from dataclasses import dataclass

from plumbline.seeds import rng

PRODUCTS = (
    "hammers", "chisels", "levels", "clamps", "ladders", "lamps",
    "drills", "ropes", "hinges", "buckets", "saws", "pumps",
)  # fmt: skip
NAMES = (
    "Ana", "Ben", "Cleo", "Dev", "Eva", "Finn", "Gus", "Hana", "Ivo", "Kim", "Leo", "Mina",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
FACTS = ("price", "aisle", "stock", "guarantee")


@dataclass(frozen=True, slots=True)
class Product:
    """One line of the catalogue: price in dollars, aisle, pieces in stock, guarantee in years."""

    name: str
    price: int
    aisle: int
    stock: int
    guarantee: int

    def fact(self, name: str) -> int:
        """Return the value of one of `FACTS`."""
        if name not in FACTS:
            raise KeyError(f"{name!r} is not a fact of a product; facts are {', '.join(FACTS)}")
        return int(getattr(self, name))


@dataclass(frozen=True, slots=True)
class Shop:
    """The catalogue, by product name, and what delivery costs in dollars."""

    catalogue: dict[str, Product]
    delivery: int

    @classmethod
    def from_seed(cls, data_seed: int) -> Shop:
        """Build the shop of a data seed: prices differ, the rest may repeat."""
        random = rng(data_seed, "shop")
        prices = random.choices(range(2, 13), k=len(PRODUCTS))
        return cls(
            {
                name: Product(
                    name,
                    price,
                    aisle=random.randint(1, 9),
                    stock=random.randint(3, 40),
                    guarantee=random.randint(1, 9),
                )
                for name, price in zip(PRODUCTS, prices, strict=True)
            },
            delivery=random.randint(3, 9),
        )

    def __getitem__(self, name: str) -> Product:
        return self.catalogue[name]
