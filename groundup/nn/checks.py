"""What the configs of building blocks ask of their fields, in words a user can act on."""

from __future__ import annotations

from groundup.config import UserError, did_you_mean, require


def at_least_one(section: str, config: object, *names: str) -> None:
    """Fields of `config`, called `section` in files, that should be 1 or more."""
    for name in names:
        value = getattr(config, name)
        require(value >= 1, f"{section}.{name} should be at least 1, but is {value}.")


def probability(section: str, config: object, *names: str) -> None:
    """Fields that should be in [0, 1)."""
    for name in names:
        value = getattr(config, name)
        require(
            0 <= value < 1, f"{section}.{name} should be at least 0 and below 1, but is {value}."
        )


def choice(where: str, value: str, options: tuple[str, ...]) -> None:
    """A field that should be one of a few words."""
    if value not in options:
        raise UserError(f"{where} cannot be {value!r}.{did_you_mean(value, options)}")


def divisors(number: int) -> str:
    """1, 2, 3, 6 for 6: what could have been chosen, of numbers up to a thousand."""
    # A number read from a hostile file must not be counted up to.
    return ", ".join(str(n) for n in range(1, min(number, 1000) + 1) if number % n == 0)
