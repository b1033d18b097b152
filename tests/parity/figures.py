"""Counts that tests report: conftest.py prints them at the end."""

FIGURES = {}


def count(what, by=1):
    FIGURES[what] = FIGURES.get(what, 0) + by
