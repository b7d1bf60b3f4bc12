"""`genba search`."""

import typer

search_app = typer.Typer(no_args_is_help=True)
