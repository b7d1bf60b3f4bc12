"""Under which conditions networks are scored: what a score depends on besides the network."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import torch

from host.network.graph import Network
from host.proxies.catalogue import proxies_by_name
from host.proxies.engine import score
from host.proxies.images import gaussian_batch, natural_batch
from host.spaces.base import Candidate, Task
from host.spaces.nasbench201 import NasBench201

Images = Literal["gaussian", "natural"]
IMAGES: tuple[Images, ...] = ("natural", "gaussian")
_CHANNELS = 3


@dataclass(frozen=True)
class Setting:
    """The batch, the stand-in of a network, and the seed of batch, weights and labels.

    `cells` is how many cells a stage of the stand-in has, `classes` how many outputs; images are
    `resolution` pixels wide and high.
    """

    batch_size: int
    resolution: int
    cells: int
    classes: int
    images: Images
    seed: int

    def stand_in(self, candidate: Candidate) -> Network:
        """What proxies look at that run a network. Raises DeadNetworkError as the space does."""
        return _space(self.cells).scoring_network(candidate, self._task)

    def scores(self, candidate: Candidate, names: Sequence[str]) -> dict[str, float]:
        """The scores of a candidate by proxy name, as a study gets them: free proxies read the
        network itself, the others share their passes over the stand-in.
        """
        proxies = proxies_by_name(names)
        free = [proxy for proxy in proxies if proxy.cost == "free"]
        dear = [proxy for proxy in proxies if proxy.cost != "free"]
        found: dict[str, float] = {}
        for some, build in (
            (free, _space(self.cells).build),
            (dear, _space(self.cells).scoring_network),
        ):
            if some:
                network = build(candidate, self._task)
                found |= score(network, some, batch=self.batch(), seed=self.seed)
        return found

    def batch(self) -> torch.Tensor:
        """The images that all networks see, (N, 3, H, W) float32."""
        return _batch(self.images, self.batch_size, self.resolution, self.seed)

    def inits(self, count: int) -> list["Setting"]:
        """This setting under so many seeds, its own the first."""
        return [replace(self, seed=self.seed + step) for step in range(count)]

    @property
    def _task(self) -> Task:
        return Task(_CHANNELS, self.classes)

    def parts(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)


@lru_cache(maxsize=8)
def _space(cells: int) -> NasBench201:
    return NasBench201(scoring_cells=cells)


@lru_cache(maxsize=8)
def _batch(images: Images, size: int, resolution: int, seed: int) -> torch.Tensor:
    draw = gaussian_batch if images == "gaussian" else natural_batch
    return draw((size, _CHANNELS, resolution, resolution), seed=seed)
