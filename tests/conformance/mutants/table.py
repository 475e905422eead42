"""All mutants, in the order of the rules."""

from __future__ import annotations

from tests.conformance.mutants import (
    actions,
    broad,
    calls,
    codecs,
    dialect,
    frames,
    hub,
    hub_clients,
    hub_state,
    hub_uploads,
    level0,
    level1,
    passing,
    streams,
    values,
)

__all__ = ["MUTANTS"]

MUTANTS = (
    *broad.MUTANTS,
    *frames.MUTANTS,
    *level0.MUTANTS,
    *dialect.MUTANTS,
    *values.MUTANTS,
    *codecs.MUTANTS,
    *calls.MUTANTS,
    *level1.MUTANTS,
    *streams.MUTANTS,
    *passing.MUTANTS,
    *hub.MUTANTS,
    *hub_clients.MUTANTS,
    *hub_uploads.MUTANTS,
    *hub_state.MUTANTS,
    *actions.MUTANTS,
)
