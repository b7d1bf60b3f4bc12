"""Who judges: an ensemble by its name, or the proxies that somebody named."""

from collections.abc import Sequence

from host.errors import UsageError
from host.proxies.catalogue import proxies_by_name
from host.proxies.ensembles import RECOMMENDED, Ensemble, ensemble_by_name


def judge(ensemble: str | None, proxies: Sequence[str] | None) -> Ensemble:
    """The ensemble of that name, or one of these proxies, or (without either) RECOMMENDED.

    Raises UsageError for both, for a name that is none, and for a proxy that stands twice.
    """
    if ensemble is not None and proxies is not None:
        raise UsageError("proxies and an ensemble exclude each other: leave one of them out")
    if ensemble is not None:
        return ensemble_by_name(ensemble)
    if proxies is None:
        return RECOMMENDED
    proxies_by_name(proxies)
    twice = next((name for name in proxies if list(proxies).count(name) > 1), None)
    if twice is not None or not proxies:
        what = "no proxy is named" if twice is None else f"the proxy {twice} is named twice"
        raise UsageError(f"{what}: name each once, such as flops,naswot")
    return Ensemble(" + ".join(proxies), dict.fromkeys(proxies, 1.0), "the proxies that were named")
