"""Every proxy on its own, straight from its definition: one function, one proxy, its own passes.

The peer in the benchmark of cost, and the oracle of the shared engine in the tests. Each function
takes a module in training mode, images (N, C, H, W) float32 and labels (N,) int64, and leaves the
module as it found it. Absent scores are not dressed up: nan and infinities come out as they arise.
"""
