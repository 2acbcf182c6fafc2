# SPDX-License-Identifier: Apache-2.0
"""The journal: the one append-only history that every worker writes, tails and restarts from.

interface.py says what a journal must do; each other file is one backend.
"""
