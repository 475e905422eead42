"""All mutants, in the order of the rules."""

from __future__ import annotations

from tests.conformance.mutants import calls, codecs, dialect, frames, level0, passing, streams, values

__all__ = ["MUTANTS"]

MUTANTS = (
    *frames.MUTANTS,
    *level0.MUTANTS,
    *dialect.MUTANTS,
    *values.MUTANTS,
    *codecs.MUTANTS,
    *calls.MUTANTS,
    *streams.MUTANTS,
    *passing.MUTANTS,
)
