"""Every proxy by name."""

from collections.abc import Sequence

from host.errors import UsageError
from host.proxies.az_nas import (
    AZ_EXPRESSIVITY,
    AZ_PROGRESSIVITY,
    AZ_TRAINABILITY,
)
from host.proxies.base import Proxy
from host.proxies.epe_nas import EPE_NAS
from host.proxies.fisher import FISHER
from host.proxies.flops import FLOPS
from host.proxies.grad_norm import GRAD_NORM
from host.proxies.gradient_balance import GRADIENT_BALANCE
from host.proxies.gradsign import GRADSIGN
from host.proxies.grasp import GRASP
from host.proxies.jacob_cov import JACOB_COV
from host.proxies.linear_regions import LINEAR_REGIONS
from host.proxies.meco import MECO
from host.proxies.naswot import NASWOT
from host.proxies.nn_mass import NN_DEGREE, NN_MASS
from host.proxies.ntk_condition import NTK_CONDITION
from host.proxies.parameters import PARAMETERS
from host.proxies.response_variance import RESPONSE_VARIANCE
from host.proxies.size import DEPTH, L2_NORM, LAYERS
from host.proxies.snip import PLAIN, SNIP
from host.proxies.swap import SWAP
from host.proxies.synflow import LOG_SYNFLOW, SYNFLOW
from host.proxies.vkdnw import VKDNW
from host.proxies.zen import ZEN
from host.proxies.zico import ZICO

PROXIES: dict[str, Proxy] = {
    proxy.name: proxy
    for proxy in (
        PARAMETERS,
        FLOPS,
        LAYERS,
        DEPTH,
        NN_MASS,
        NN_DEGREE,
        L2_NORM,
        NASWOT,
        LINEAR_REGIONS,
        SWAP,
        MECO,
        ZEN,
        AZ_EXPRESSIVITY,
        AZ_PROGRESSIVITY,
        RESPONSE_VARIANCE,
        GRADIENT_BALANCE,
        AZ_TRAINABILITY,
        SYNFLOW,
        LOG_SYNFLOW,
        JACOB_COV,
        EPE_NAS,
        GRAD_NORM,
        PLAIN,
        SNIP,
        FISHER,
        ZICO,
        GRASP,
        GRADSIGN,
        NTK_CONDITION,
        VKDNW,
    )
}
"""Free ones first, then by what they cost."""


def proxies_by_name(names: Sequence[str]) -> tuple[Proxy, ...]:
    """The proxies of those names.

    Raises UsageError for a name that is none.
    """
    for name in names:
        if name not in PROXIES:
            raise UsageError(f'there is no proxy "{name}"; choose from {", ".join(PROXIES)}')
    return tuple(PROXIES[name] for name in names)
