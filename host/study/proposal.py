"""A candidate with everything that can be known of it without scoring or measuring."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from cost_models.kernels import KernelGraph
from host.export.forms import Runtime
from host.export.rendering import rendered
from host.network.graph import InvalidNetworkError, Network
from host.network.kernels import kernels_of
from host.network.tflite_kernels import tflite_kernels_of
from host.network.weights import random_weights
from host.proxies.scoring import Subject
from host.spaces.base import Candidate, SearchSpace, Task

_BYTES_OF_A_NODE = 320
_BYTES_OF_A_FILE = 1024


@dataclass(frozen=True, eq=False)
class Proposal:
    """A candidate and its network. Isomorphic candidates have one key."""

    candidate: Candidate
    text: str
    network: Network

    @property
    def key(self) -> str:
        return self.network.key

    @cached_property
    def graph(self) -> KernelGraph:
        """What a device will execute."""
        return kernels_of(self.network)

    def graph_for(self, runtime: Runtime) -> KernelGraph:
        """What a runtime will execute.

        ncnn takes in normalisations and activations as onnxruntime does, and hard-swish besides.
        """
        return self._tflite_graph if runtime == "tflite" else self.graph

    @cached_property
    def _tflite_graph(self) -> KernelGraph:
        return tflite_kernels_of(self.network)

    @property
    def model_bytes(self) -> int:
        """An upper bound of the size of the float32 ONNX file, without writing it."""
        nodes = _BYTES_OF_A_NODE * len(self.network.nodes)
        return self.graph.weight_bytes + nodes + _BYTES_OF_A_FILE

    def untrained(self, runtimes: Iterable[Runtime]) -> dict[Runtime, bytes]:
        """The files to measure: weights drawn from the key, so the same bytes every time."""
        weights = random_weights(self.network, seed=int(self.key[:8], 16))
        return {runtime: rendered(self.network, runtime, weights) for runtime in sorted(runtimes)}


class Proposer:
    """Makes proposals of candidates, each network once; remembers all that it made."""

    def __init__(self, space: SearchSpace, task: Task) -> None:
        self.space = space
        self.task = task
        self._by_key: dict[str, Proposal] = {}

    def fresh(self, candidates: Iterable[Candidate]) -> list[Proposal]:
        """Those that are networks and not isomorphic to one made before."""
        proposals = []
        for candidate in candidates:
            try:
                network = self.space.build(candidate, self.task)
            except InvalidNetworkError:
                continue
            if network.key not in self._by_key:
                proposal = Proposal(candidate, self.space.text(candidate), network)
                self._by_key[network.key] = proposal
                proposals.append(proposal)
        return proposals

    def subject(self, proposal: Proposal) -> Subject:
        """A proposal as proxies see it: by the stand-in of its space, where there is one."""
        looked_at = self.space.scoring_network(proposal.candidate, self.task)
        return Subject(
            key=proposal.key,
            space=self.space.name,
            text=proposal.text,
            network=proposal.network,
            macs=proposal.network.macs,
            parameters=proposal.network.parameters,
            looked_at=None if looked_at.key == proposal.key else looked_at,
        )
