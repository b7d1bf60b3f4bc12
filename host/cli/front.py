"""`genba front`."""

import typer

front_app = typer.Typer(no_args_is_help=True)
