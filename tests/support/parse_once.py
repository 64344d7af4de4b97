"""Parsers of OmegaConf that remember: composing ``conf/`` from the same texts is most of the time of many tests."""

from __future__ import annotations

import functools
import io
from typing import IO, Any

import omegaconf._utils
import omegaconf.base
import omegaconf.grammar_parser
from omegaconf import OmegaConf

_load = OmegaConf.load


@functools.cache
def _plain(text: str) -> Any:
    return OmegaConf.to_container(_load(io.StringIO(text)), resolve=False)


def _load_once(file: str | IO[Any]) -> Any:
    """Return what ``OmegaConf.load`` does, from a text that was parsed before if it was; errors name the file."""
    if not hasattr(file, "read"):
        with open(file, encoding="utf-8") as opened:
            return _load_once(opened)
    try:
        return OmegaConf.create(_plain(file.read()))
    except Exception:
        file.seek(0)
        return _load(file)


def parse_once() -> None:
    """Let this process parse each yaml and each interpolation once; values are resolved anew as always."""
    OmegaConf.load = staticmethod(_load_once)  # type: ignore[method-assign]
    parse = functools.cache(omegaconf.grammar_parser.parse)
    omegaconf.base.parse = omegaconf._utils.parse = parse  # type: ignore[attr-defined]
