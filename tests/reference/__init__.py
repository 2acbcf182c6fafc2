# SPDX-License-Identifier: Apache-2.0
"""The behaviour model once more, in plain Python: what the native engine must say, event by event.

Written from the formulas of the documentation, for reading and for comparing, not for speed: dictionaries
with readable keys instead of hashed tables, one module per signal. Where the engine stores 32-bit floats
this model rounds to them, because a sum of float32 is a different number from a sum of float64.

Not modelled, and not reached by the tests that use it: the bounds of the tables (cells per user and per
group, number of users, groups and tools, calls in flight), and the halving of a table that holds more
than four million calls.
"""
