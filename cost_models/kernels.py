"""What a runtime executes of a network, after fusion: the input of every cost model."""

from dataclasses import dataclass
from typing import Literal, get_args

KernelClass = Literal[
    "conv",  # dense convolution larger than 1x1, of one or more dimensions
    "pointwise",  # dense 1x1 convolution
    "depthwise",  # one filter per channel
    "grouped",  # convolution in several groups of more than one channel
    "gemm",  # product of an activation with weights
    "matmul",  # product of two activations
    "recurrent",  # LSTM, GRU, RNN: small products in sequential steps
    "pool",  # window pooling
    "reduce",  # global pooling, means
    "normalise",  # softmax and normalisations that stand alone: a few passes over their input
    "elementwise",  # additions, multiplications, comparisons, simple activations that stand alone
    "transcendental",  # elementwise with exponentials or the like: sigmoid, tanh, erf, GELU
    "move",  # concatenation, transposition, padding
    "unknown",  # charged by bytes, and flagged
]
KERNEL_CLASSES: tuple[KernelClass, ...] = get_args(KernelClass)
NETWORK_INPUT = -1


@dataclass(frozen=True, slots=True)
class Kernel:
    """One step of the runtime. Bytes are of one inference at batch 1.

    `reads` holds, per tensor read, the index in the list of the kernel that wrote it, or
    NETWORK_INPUT. `ops` names the operators fused into this step, the first one leading, as the
    file's format names them. `output_shape` is of the first output, without the batch. `steps` are
    the sequential steps within it (the sequence length of a recurrent operator). `integer` is on
    where the multiply-accumulates are of 8-bit integers.
    """

    kind: KernelClass
    ops: tuple[str, ...]
    macs: int
    input_bytes: int
    output_bytes: int
    weight_bytes: int
    reads: tuple[int, ...]
    output_shape: tuple[int, ...]
    steps: int = 1
    integer: bool = False


@dataclass(frozen=True, slots=True)
class KernelGraph:
    """The kernels of one network in the order in which the runtime executes them.

    `input_bytes` is the size of the network's input at batch 1.
    """

    kernels: tuple[Kernel, ...]
    input_bytes: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one inference."""
        return sum(kernel.macs for kernel in self.kernels)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights."""
        return sum(kernel.weight_bytes for kernel in self.kernels)

    @property
    def peak_activation_bytes(self) -> int:
        """Largest sum of the bytes of activations alive at once, executing in list order.

        A tensor lives from the step that writes it to the last step that reads it; the last
        kernel's output lives to the end. No buffer is reused in place, so this bounds from above
        what a runtime with perfect packing needs.
        """
        last_read: dict[int, int] = {}
        for step, kernel in enumerate(self.kernels):
            for source in kernel.reads:
                last_read[source] = step
        freed_after: dict[int, list[int]] = {}
        for source, step in last_read.items():
            freed_after.setdefault(step, []).append(source)
        alive = peak = self.input_bytes
        for step, kernel in enumerate(self.kernels):
            alive += kernel.output_bytes
            peak = max(peak, alive)
            for source in freed_after.get(step, ()):
                alive -= (
                    self.input_bytes
                    if source == NETWORK_INPUT
                    else self.kernels[source].output_bytes
                )
        return peak
