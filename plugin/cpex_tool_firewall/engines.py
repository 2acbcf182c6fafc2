# SPDX-License-Identifier: Apache-2.0
"""Settings into an engine: the one place that knows which setting is which argument, in which unit."""

from ._native import Engine
from .config import Settings
from .zones import tables

_MINUTE_SECONDS = 60.0


def build_engine(settings: Settings, key: bytes, *, worker: int = 0, journaling: bool = False) -> Engine:
    """A fresh engine with these settings; see Engine for the arguments. Raises ZoneError for an unknown zone.

    A worker and a reader that build it from the same settings and apply the same records hold the same state.
    """
    zones = {settings.time_zone, *settings.tenant_time_zones.values(), *settings.user_time_zones.values()}
    try:
        return Engine(
            key,
            worker=worker,
            burst_threshold=settings.burst_threshold,
            burst_window=settings.burst_window_seconds,
            half_life_days=settings.half_life_days,
            new_for_hours=settings.new_for_hours,
            session_idle=settings.session_idle_minutes * _MINUTE_SECONDS,
            learning_days=settings.learning_days,
            max_users_per_tenant=settings.max_users_per_tenant,
            max_memory_mb=settings.max_memory_mb,
            zones=tables(sorted(zones)),
            default_zone=settings.time_zone,
            tenant_zones=settings.tenant_time_zones,
            user_zones=settings.user_time_zones,
            journaling=journaling,
            rate_spike_floor=settings.rate_spike_calls,
            burn_spike_floor=settings.burn_spike_cost,
            session_budget=settings.session_budget or 0.0,
            day_budget=settings.day_budget or 0.0,
            tenant_thresholds=settings.tenant_thresholds,
            tool_thresholds=settings.tool_thresholds,
            user_thresholds=settings.user_thresholds,
            record_destinations=settings.record_destinations,
            learn_groups=settings.learn_peer_groups,
        )
    except TypeError:
        # Its text would list the arguments, and with them the key.
        raise ImportError(
            "the compiled engine is not of this release; reinstall: pip install --force-reinstall "
            "cpex-tool-firewall"
        ) from None
