"""Certificates and training logs as words, tables, figures and the report. Knows nothing of torch."""
