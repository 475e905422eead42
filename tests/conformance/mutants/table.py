"""All mutants, in the order of the rules."""

from __future__ import annotations

from tests.conformance.mutants import calls, codecs, dialect, frames, passing, streams

__all__ = ["MUTANTS"]

MUTANTS = (
    *frames.MUTANTS,
    *dialect.MUTANTS,
    *codecs.MUTANTS,
    *calls.MUTANTS,
    *streams.MUTANTS,
    *passing.MUTANTS,
)
