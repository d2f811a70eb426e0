"""Payload encryption for `children(payload_codec=...)`; needs the extra `crypto`."""

try:
    from continuum.encryption.aes_gcm import AesGcmCodec
except ImportError as error:
    raise ImportError("payload encryption needs cryptography: pip install 'continuum-durable[crypto]'") from error

__all__ = ["AesGcmCodec"]
