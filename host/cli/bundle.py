"""`genba bundle`."""

import typer

bundle_app = typer.Typer(no_args_is_help=True)
