"""Certificates: their format, how they are built, and how they are checked."""

from sublora.certificate.schema import Certificate, load_certificate

__all__ = ["Certificate", "load_certificate"]
