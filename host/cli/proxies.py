"""`genba proxies`: what ranks networks without training them."""

from typing import Annotated

import typer

from host.cli.console import print_json, table_console
from host.cli.workspace import JsonOption
from host.errors import UsageError

proxies_app = typer.Typer(no_args_is_help=True)


@proxies_app.command("list")
def list_proxies(*, as_json: JsonOption = False) -> None:
    """List proxies and ensembles of them, with what one score costs and what was published."""
    from host.report.proxies import catalogue_record, proxies_table

    if as_json:
        print_json(catalogue_record())
    else:
        table_console().print(proxies_table())


@proxies_app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of a proxy or an ensemble.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Show formula, source, direction, cost, needs and published correlations."""
    from host.proxies.catalogue import PROXIES
    from host.proxies.ensembles import ENSEMBLES
    from host.report.proxies import ensemble_card, ensemble_record, proxy_card, proxy_record

    if name in PROXIES:
        proxy = PROXIES[name]
        if as_json:
            print_json(proxy_record(proxy))
        else:
            table_console().print(proxy_card(proxy))
    elif name in ENSEMBLES:
        ensemble = ENSEMBLES[name]
        if as_json:
            print_json(ensemble_record(ensemble))
        else:
            table_console().print(ensemble_card(ensemble))
    else:
        raise UsageError(
            f"there is no proxy and no ensemble {name!r}; the proxies are {', '.join(PROXIES)},"
            f" the ensembles {', '.join(ENSEMBLES)}"
        )
