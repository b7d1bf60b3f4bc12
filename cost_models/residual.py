"""What an additive model gets wrong, learned from its log errors: a small Gaussian process."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from cost_models.nnls import FloatArray

_LENGTHS = np.array([0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 8.0])
_NOISES = 10.0 ** np.arange(-3, 1.6, 0.25)
_LEARNED_ON = 150
_KNOWN = 1000
_BATCH = 4096


@dataclass(frozen=True)
class Kernel:
    """Squared-exponential kernel with white noise: what of a Gaussian process is learned.

    `lengths` holds one length for each column, of standardised inputs; `noise` is the variance of
    the noise over that of the function.
    """

    lengths: tuple[float, ...]
    noise: float

    @classmethod
    def learned(
        cls, inputs: FloatArray, targets: FloatArray, groups: npt.NDArray[np.int64]
    ) -> Self:
        """The kernel of the highest marginal likelihood on a grid; deterministic.

        Columns of one group share a length, scaled by the square root of their number. The
        variance of the function has its best value in closed form. Above 150 rows, 150 evenly
        spread ones are used. Source: C. E. Rasmussen, C. K. I. Williams, Gaussian Processes for
        Machine Learning, eq. 2.30 and 5.8.
        """
        step = max(1, -(-len(targets) // _LEARNED_ON))
        inputs, targets = _standardised(inputs)[0][::step], targets[::step]
        kinds = np.unique(groups)
        distances = [
            _squared_distances(inputs[:, groups == k], inputs[:, groups == k]) for k in kinds
        ]
        roots = [float(np.sqrt((groups == k).sum())) for k in kinds]
        best = (-np.inf, np.ones(len(kinds)), 1.0)
        for multiples in np.stack(np.meshgrid(*[_LENGTHS] * len(kinds)), -1).reshape(
            -1, len(kinds)
        ):
            exponent = sum(
                d / (m * root) ** 2 for d, m, root in zip(distances, multiples, roots, strict=True)
            )
            values, vectors = np.linalg.eigh(np.exp(-0.5 * np.asarray(exponent)))
            spectrum = np.maximum(values, 0)[:, np.newaxis] + _NOISES
            powers = ((vectors.T @ targets) ** 2)[:, np.newaxis]
            variance = np.maximum((powers / spectrum).mean(axis=0), 1e-300)
            likelihoods = -0.5 * (len(targets) * np.log(variance) + np.log(spectrum).sum(axis=0))
            index = int(np.argmax(likelihoods))
            if likelihoods[index] > best[0]:
                best = (float(likelihoods[index]), multiples, float(_NOISES[index]))
        lengths = np.ones(inputs.shape[1])
        for kind, multiple, root in zip(kinds, best[1], roots, strict=True):
            lengths[groups == kind] = multiple * root
        return cls(tuple(lengths.tolist()), best[2])


@dataclass(frozen=True)
class GaussianProcess:
    """The mean function of a Gaussian process after some data."""

    kernel: Kernel
    centre: FloatArray
    scale: FloatArray
    known: FloatArray
    weights: FloatArray

    @classmethod
    def fitted(cls, inputs: FloatArray, targets: FloatArray, kernel: Kernel) -> Self:
        """Conditioned on rows of inputs and their targets, the mean before the data being 0.

        Above 1000 rows, on 1000 evenly spread ones.
        """
        step = max(1, -(-len(targets) // _KNOWN))
        inputs, targets = inputs[::step], targets[::step]
        _, centre, scale = _standardised(inputs)
        known = (inputs - centre) * scale / np.array(kernel.lengths)
        covariance = np.exp(-0.5 * _squared_distances(known, known))
        noisy = covariance + kernel.noise * np.eye(len(targets))
        weights = np.linalg.solve(noisy, targets).astype(np.float64, copy=False)
        return cls(kernel, centre, scale, known, weights)

    def values(self, inputs: FloatArray) -> FloatArray:
        """The mean at each row; it goes to 0 far from the data."""
        values = np.empty(len(inputs))
        for start in range(0, len(inputs), _BATCH):
            batch = inputs[start : start + _BATCH]
            asked = (batch - self.centre) * self.scale / np.array(self.kernel.lengths)
            covariance = np.exp(-0.5 * _squared_distances(asked, self.known))
            values[start : start + _BATCH] = covariance @ self.weights
        return values


def _standardised(inputs: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    centre, spread = inputs.mean(axis=0), inputs.std(axis=0)
    varies = spread > 1e-9 * np.maximum(np.abs(inputs).max(axis=0), 1e-300)
    scale = np.where(varies, 1 / np.where(varies, spread, 1.0), 0.0)
    return (inputs - centre) * scale, centre, scale


def _squared_distances(left: FloatArray, right: FloatArray) -> FloatArray:
    squares = (left**2).sum(axis=1)[:, np.newaxis] + (right**2).sum(axis=1)
    distances: FloatArray = np.maximum(squares - 2 * (left @ right.T), 0)
    return distances
