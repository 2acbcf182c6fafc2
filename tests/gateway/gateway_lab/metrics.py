# SPDX-License-Identifier: Apache-2.0
"""Reads a Prometheus page."""

from prometheus_client.parser import text_string_to_metric_families


def samples(page: str, name: str, **labels: str) -> float:
    """The sum of a sample over all its other labels; 0 when there is none."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
