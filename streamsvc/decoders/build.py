"""A decoder from its configuration."""

from __future__ import annotations

from streamsvc.config import Decode
from streamsvc.contracts import Decoder
from streamsvc.decoders.apache import apache_decoder
from streamsvc.decoders.raw import RawDecoder


def build(decode: Decode) -> Decoder:
    """Raises ``ValueError``: what is wrong with the configuration, for people."""
    if decode.apache is not None:
        return apache_decoder(decode.apache)
    if decode.raw is not None:
        return RawDecoder(decode.raw.column, decode.raw.type)
    raise ValueError("name exactly one decoder: apache, json or raw")
