"""Logs, tables, figures and report pages of runs and studies."""
