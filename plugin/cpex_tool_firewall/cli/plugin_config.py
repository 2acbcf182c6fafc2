# SPDX-License-Identifier: Apache-2.0
"""Reads settings from files: a gateway's plugin configuration with our block in it, or the bare settings."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2.sandbox import SandboxedEnvironment

from ..gateway_view import KIND


class FileError(Exception):
    """A configuration file cannot be used. The text names it, what is wrong and what to do."""


def read_document(path: Path) -> Any:
    """The YAML of `path`, its {{ env.NAME }} placeholders filled in as the gateway does. Raises FileError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    try:
        rendered = SandboxedEnvironment(autoescape=True).from_string(text).render(env=os.environ)
        return yaml.safe_load(rendered)
    except jinja2.TemplateError as error:
        raise FileError(f"{path}: a placeholder cannot be filled in: {error}") from error
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f"line {where.line + 1}: " if where is not None else ""
        raise FileError(f"{path}: {line}not YAML: {getattr(error, 'problem', None) or error}") from error


def our_blocks(document: Any) -> list[Mapping[str, Any]]:
    """The entries of a gateway's plugin configuration that are this plugin, by kind."""
    return [entry for entry in plugin_entries(document) if entry.get("kind") == KIND]


def plugin_entries(document: Any) -> list[Mapping[str, Any]]:
    """All entries of a gateway's plugin configuration; none when it is something else."""
    entries = document.get("plugins") if isinstance(document, Mapping) else None
    return [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []


def settings_in(path: Path) -> Mapping[str, Any]:
    """The settings in `path`, a gateway's plugin configuration or bare settings. Raises FileError."""
    document = read_document(path)
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        raise FileError(f"{path}: holds a {type(document).__name__}; accepted: a block of settings")
    if "plugins" not in document:
        return document
    blocks = our_blocks(document)
    if len(blocks) != 1:
        found = "no plugin" if not blocks else f"{len(blocks)} plugins"
        raise FileError(
            f"{path}: {found} of kind {KIND}; accepted: exactly one, or a file with the bare settings"
        )
    config = blocks[0].get("config")
    if config is not None and not isinstance(config, Mapping):
        raise FileError(
            f"{path}: the plugin's config is a {type(config).__name__}; accepted: a block of settings"
        )
    return config or {}
