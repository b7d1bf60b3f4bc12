"""`genba cost`: what the cost models of devices know, what they predict, and whether it holds."""

import typer

from host.cli.cost_exchange import export_models, import_models
from host.cli.cost_predict import predict
from host.cli.cost_show import show
from host.cli.cost_validate import validate

cost_app = typer.Typer(no_args_is_help=True)
cost_app.command()(show)
cost_app.command()(predict)
cost_app.command()(validate)
cost_app.command("export")(export_models)
cost_app.command("import")(import_models)
