"""The `prefroute` command. The only package that prints."""

from prefroute.cli._app import app, main

__all__ = ["app", "main"]
