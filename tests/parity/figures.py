"""What tests count and measure; conftest.py prints it at the end."""

#: what was counted → how many
FIGURES = {}

#: (test, what was compared) → (largest difference, its bound)
DIFFERENCES = {}


def count(what, by=1):
    FIGURES[what] = FIGURES.get(what, 0) + by


def note_difference(test, what, difference, bound):
    DIFFERENCES[test, what] = max(DIFFERENCES.get((test, what), (0.0, bound)), (difference, bound))


def exported():
    """Everything noted so far, as data that one process can send to another."""
    return {"counts": FIGURES, "differences": [(*row, *value) for row, value in DIFFERENCES.items()]}


def add(other):
    """Adds what another process exported."""
    for what, number in other["counts"].items():
        count(what, number)
    for row in other["differences"]:
        note_difference(*row)
