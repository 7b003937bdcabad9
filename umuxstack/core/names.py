"""What the verbs of a stack are given, checked: names, labels, numbers, durations.

All who show names and labels can carry them. A listener's name is a word of the command line, of the control socket, of
captures and of the names of logs; it stands in its addresses' names ("ssa.httpd.2"). A label is a line for people.
"""

from typing import Final

from umuxstack.core.errors import BadArgument

LONGEST_NAME: Final = 64  # bytes; with what is put around it, it fits the control socket's 96
LONGEST_LABEL: Final = 128


def check_name(name: object) -> None:
    """Raises BadArgument for what cannot be a listener's name."""
    _check_text(name, "name", LONGEST_NAME)
    assert isinstance(name, str)
    if not name or not all(letter.isalnum() or letter in "._-" for letter in name) or name.startswith("-"):
        raise BadArgument(f"name is {name!r}; it is letters and digits, with . _ or - among them")
    if name.isdigit():
        raise BadArgument(f"name is {name!r}; a number alone is a listener's id")
    if name[:3] in ("tcp", "udp") and name[3:].isdigit():
        raise BadArgument(f"name is {name!r}; such names are made up for listeners that were given none")


def check_label(label: object) -> None:
    """Raises BadArgument for what cannot be written on an address."""
    _check_text(label, "label", LONGEST_LABEL)


def check_number(number: object, what: str, low: int, high: int) -> None:
    """Raises BadArgument for what is no whole number from `low` to `high`."""
    if not isinstance(number, int) or not low <= number <= high:
        raise BadArgument(f"{what} is {number!r}; it is a number from {low} to {high}")


def check_seconds(seconds: object, what: str) -> None:
    """Raises BadArgument for what is no duration: no number, or less than 0."""
    if not isinstance(seconds, int | float) or not seconds >= 0:
        raise BadArgument(f"{what} is {seconds!r}; it is a number of seconds, 0 or more")


def _check_text(text: object, what: str, limit: int) -> None:
    if not isinstance(text, str):
        raise BadArgument(f"{what} is {text!r}; it is a text")
    if not text.isprintable():
        raise BadArgument(f"{what} is {text!r}, which holds characters that cannot be printed")
    size = len(text.encode())
    if size > limit:
        raise BadArgument(f"{what} has {size} bytes; at most {limit} are allowed")
