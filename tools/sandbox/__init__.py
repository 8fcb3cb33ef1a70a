"""Isolation of jobs and dry runs, and the worker that reads what others wrote."""
