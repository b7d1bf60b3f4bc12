"""Scores of candidates, computed once in the life of a workspace."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from host.proxies.base import Proxy
from host.proxies.engine import score
from host.proxies.rank import directions, log_rank
from host.store.candidates import StoredCandidate
from host.store.store import Store
from host.study.proposal import Proposal

Images = Callable[[int, int], npt.NDArray[np.float32]]
"""A batch of normalised images (N, C, H, W) for a height and a width."""


@dataclass
class Scorer:
    """Scores proposals by the study's proxies, reading from the store what it holds.

    `input_key` names the images and the seed that the scores depend on.
    """

    store: Store
    proxies: Sequence[Proxy]
    images: Images
    input_key: str
    seed: int
    space: str
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    _batches: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)

    def score(self, proposals: Sequence[Proposal], on_done: Callable[[int], None]) -> None:
        """Fill `scores` for these proposals; `on_done` is told how many are ready."""
        self.store.candidates.add_all(
            StoredCandidate(p.key, self.space, p.text, p.network.macs, p.network.parameters)
            for p in proposals
        )
        stored = {proxy.name: self._stored(proxy, proposals) for proxy in self.proxies}
        for done, proposal in enumerate(proposals, start=1):
            known = {
                n: values[proposal.key] for n, values in stored.items() if proposal.key in values
            }
            missing = [proxy for proxy in self.proxies if proxy.name not in known]
            if missing:
                known |= self._compute(proposal, missing)
            self.scores[proposal.key] = known
            on_done(done)

    def combined(self, keys: Sequence[str]) -> npt.NDArray[np.float64]:
        """The log-rank of these candidates among themselves; higher is better."""
        table = {p.name: [self.scores[key][p.name] for key in keys] for p in self.proxies}
        return log_rank(table, directions(self.proxies))

    def _stored(self, proxy: Proxy, proposals: Sequence[Proposal]) -> dict[str, float]:
        values = self.store.candidates.scores(
            [p.key for p in proposals], proxy.name, str(proxy.version), self.input_key
        )
        return {key: math.nan if value is None else value for key, value in values.items()}

    def _compute(self, proposal: Proposal, proxies: Sequence[Proxy]) -> dict[str, float]:
        _, height, width = proposal.network.input_shape
        if (height, width) not in self._batches:
            self._batches[height, width] = torch.from_numpy(self.images(height, width))
        computed = score(
            proposal.network, proxies, batch=self._batches[height, width], seed=self.seed
        )
        for proxy in proxies:
            self.store.candidates.add_scores(
                proxy.name,
                str(proxy.version),
                self.input_key,
                {proposal.key: computed[proxy.name]},
            )
        return computed
