"""A user's own ONNX files as a space, and as torch modules."""

import sys
import warnings

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from host.errors import UsageError
from host.network.onnx_import import OnnxImportError, image_shape, module_from_onnx
from host.network.onnx_layers import SliceAxes
from host.network.onnx_model import onnx_bytes
from host.network.weights import random_weights
from host.proxies.catalogue import proxies_by_name
from host.proxies.engine import score_module
from host.spaces.base import Candidate, CandidateTextError, Task, mutate, sample, size
from host.spaces.mobile import Mobile
from host.spaces.onnx_files import OnnxFiles


class Classifier(nn.Module):
    """What a user may have: batch normalisation, slices, sums, a reshape to a batch of one."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Hardswish())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.end = nn.Linear(8, 5)

    def forward(self, images):
        features = self.stem(images)
        left, right = torch.chunk(self.pool(features + self.body(features)), 2, 1)
        features = torch.cat([left, right], 1).mean((2, 3))
        return self.end(features.view(features.shape[0], -1))


class Tokens(nn.Module):
    """A class token, attention and products with a matrix: a small vision transformer."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.mix = nn.Linear(16, 16)
        self.norm = nn.LayerNorm(16)
        self.end = nn.Linear(16, 5)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(tokens.shape[0], -1, -1), tokens], 1)
        mixed = torch.softmax(tokens @ tokens.transpose(1, 2), -1) @ self.mix(tokens)
        return self.end(self.norm(tokens + mixed)[:, 0])


def export(module, path, *, opset=17, open_batch=False, shape=(3, 16, 16)):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is the old one
        torch.onnx.export(
            module.eval(), (torch.randn(1, *shape),), str(path), dynamo=False, opset_version=opset,
            input_names=["input"], dynamic_axes={"input": {0: "batch"}} if open_batch else None,
        )  # fmt: skip
    return path


def hand_made(path, nodes, *, weights=(), shape=(1, 3, 8, 8), kind=TensorProto.FLOAT,
              out=(1, 4), opset=17, domains=()):  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "by hand",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(array, name) for name, array in dict(weights).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def small(path, *, activation="Relu", opset=17, **kwargs):
    """A convolution, an activation, a global pooling and a product, node by node."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((4, 3, 3, 3), np.float32),
        "b": rng.standard_normal(4, np.float32),
        "v": rng.standard_normal((4, 4), np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node(activation, ["c"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    return hand_made(path, nodes, weights=weights.items(), opset=opset, **kwargs)


def by_onnxruntime(path, images):
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: image[np.newaxis]})[0] for image in images])


def images_of(shape=(3, 16, 16), count=4):
    return np.random.default_rng(7).standard_normal((count, *shape), dtype=np.float32)


# The space


@pytest.fixture
def space(tmp_path):
    for name in ("b.onnx", "a.onnx"):
        small(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no model")
    return OnnxFiles.of([tmp_path])


def test_a_folder_gives_its_onnx_files_by_name(space):
    assert [space.text(Candidate((index,))) for index in range(2)] == ["a.onnx", "b.onnx"]
    assert [decision.name for decision in space.decisions] == ["file"]
    assert size(space) == 2


def test_the_text_of_a_candidate_is_the_name_of_its_file(space):
    candidate = sample(space, np.random.default_rng(0))

    assert space.parse(space.text(candidate)) == candidate
    assert space.path(candidate).name == space.text(candidate)


def test_mutation_goes_to_another_file(space):
    assert mutate(space, Candidate((0,)), np.random.default_rng(0)) == Candidate((1,))


def test_a_name_of_no_file_is_refused_with_those_that_there_are(space):
    with pytest.raises(CandidateTextError, match=r"none of the files a\.onnx, b\.onnx"):
        space.parse("c.onnx")


def test_no_file_at_all_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no ONNX file to choose from"):
        OnnxFiles.of([tmp_path])


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"no file .*gone\.onnx"):
        OnnxFiles.of([tmp_path / "gone.onnx"])


def test_two_files_of_one_name_are_refused(tmp_path):
    folders = [tmp_path / "old", tmp_path / "new"]
    for folder in folders:
        folder.mkdir()
        small(folder / "net.onnx")

    with pytest.raises(UsageError, match="have one name: rename one of them"):
        OnnxFiles.of(folders)


def test_kernels_macs_and_parameters_are_those_of_what_is_executed(space):
    candidate = Candidate((0,))

    assert space.kernels(candidate).kernels[0].kind == "conv"
    assert space.macs(candidate) == 4 * 3 * 9 * 64 + 4 * 4
    assert space.parameters(candidate) == 4 * 3 * 9 + 4 + 4 * 4
    assert space.image_shape(candidate) == (3, 8, 8)


def test_costs_of_an_exported_candidate_are_those_of_its_network(tmp_path):
    mobile = Mobile({"resolution": (32,), "width": (0.25,)})
    network = mobile.build(sample(mobile, np.random.default_rng(0)), Task(3, 4))
    (tmp_path / "net.onnx").write_bytes(onnx_bytes(network, random_weights(network, seed=0)))

    space = OnnxFiles.of([tmp_path / "net.onnx"])

    assert space.macs(Candidate((0,))) == network.macs
    assert space.module(Candidate((0,)))(torch.zeros(3, 3, 32, 32)).shape == (3, 4)


def test_a_damaged_file_is_refused_by_name_when_it_is_read(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(small(path).read_bytes()[:-40] + b"rubbish" * 9)
    space = OnnxFiles.of([path])

    for ask in (space.kernels, space.macs, space.parameters, space.module, space.image_shape):
        with pytest.raises(UsageError, match=r"net\.onnx"):
            ask(Candidate((0,)))


# Conversion


@pytest.mark.parametrize("opset", [9, 11, 13, 16, 17, 18, 19, 20, 21])
@pytest.mark.parametrize("open_batch", [False, True])
def test_an_exported_classifier_computes_the_same_for_many_images(tmp_path, opset, open_batch):
    path = export(Classifier(), tmp_path / "net.onnx", opset=opset, open_batch=open_batch)

    module = module_from_onnx(path)

    images = images_of()
    with torch.no_grad():
        found = module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, by_onnxruntime(path, images), atol=1e-4)


@pytest.mark.parametrize("opset", [7, 8, 9, 13, 15, 17, 21])
def test_a_hand_made_file_of_any_opset_computes_the_same(tmp_path, opset):
    path = small(tmp_path / "net.onnx", opset=opset)

    module = module_from_onnx(path)

    images = images_of((3, 8, 8))
    with torch.no_grad():
        found = module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, by_onnxruntime(path, images), atol=1e-4)


def test_every_space_of_ours_comes_back_from_its_files(random_networks, tmp_path):
    for index, network in enumerate(random_networks(Mobile({"resolution": (32,)}), 4)):
        path = tmp_path / f"{index}.onnx"
        path.write_bytes(onnx_bytes(network, random_weights(network, seed=index)))

        module = module_from_onnx(path)

        images = images_of(network.input_shape, count=2)
        with torch.no_grad():
            found = module(torch.from_numpy(images)).numpy()
        expected = by_onnxruntime(path, images)
        np.testing.assert_allclose(found, expected, atol=1e-3 * max(1, np.abs(expected).max()))


@pytest.mark.filterwarnings("ignore:Exporting")
def test_a_transformer_with_an_open_batch_is_converted(tmp_path):
    path = export(Tokens(), tmp_path / "net.onnx", open_batch=True)

    module = module_from_onnx(path)

    with torch.no_grad():
        found = module(torch.from_numpy(images_of())).numpy()
    np.testing.assert_allclose(found, by_onnxruntime(path, images_of()), atol=1e-4)


def test_a_batch_that_is_fixed_inside_the_network_is_refused_with_the_way_out(tmp_path):
    path = export(Tokens(), tmp_path / "net.onnx", open_batch=False)

    with pytest.raises(OnnxImportError, match="one image at a time: export it with an open batch"):
        module_from_onnx(path)


def test_weights_of_products_are_parameters_as_those_of_convolutions_are(tmp_path):
    module = module_from_onnx(small(tmp_path / "net.onnx"))

    assert sum(p.numel() for p in module.parameters()) == 4 * 3 * 9 + 4 + 4 * 4
    assert any(isinstance(layer, nn.Linear) for layer in module.modules())


def test_without_a_seed_the_weights_are_those_of_the_file_and_with_one_they_are_drawn(tmp_path):
    path = export(Classifier(), tmp_path / "net.onnx")

    own, first, again, other = (module_from_onnx(path, seed=seed) for seed in (None, 1, 1, 2))

    def weights(module):
        return torch.cat([p.detach().flatten() for p in module.parameters()])

    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(other))
    assert not torch.equal(weights(first), weights(own))


def test_drawing_weights_leaves_the_global_random_state_alone(tmp_path):
    path = export(Classifier(), tmp_path / "net.onnx")
    torch.manual_seed(3)
    before = torch.get_rng_state()

    module_from_onnx(path, seed=1)

    assert torch.equal(before, torch.get_rng_state())


def test_proxies_score_a_file_whose_normalisations_are_folded(tmp_path):
    path = export(Classifier(), tmp_path / "net.onnx")
    module = module_from_onnx(path, seed=0)
    batch = torch.from_numpy(images_of(count=8))

    scores = score_module(module, proxies_by_name(["naswot", "grad_norm", "snip", "jacob_cov"]),
                          batch=batch, seed=0)  # fmt: skip

    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in module.modules())
    assert all(np.isfinite(value) for value in scores.values()), scores


def test_torchvision_is_neither_needed_nor_left_behind_as_a_stand_in(tmp_path):
    module_from_onnx(small(tmp_path / "net.onnx"))

    assert getattr(sys.modules.get("torchvision"), "__spec__", "none") is not None


SLICES = [
    ([1], [4], None, None),
    ([-3, 0], [1000, -1], [-1, 2], None),
    ([0, 1], [8, 7], [2, 3], [2, 3]),
    ([-1], [-1000], [2], [-1]),
    ([6, 3], [0, 1], [3, 1], [-2, -1]),
    ([5], [2], [3], [1]),
]


@pytest.mark.parametrize(("starts", "ends", "axes", "steps"), SLICES)
def test_slices_are_those_of_onnxruntime(tmp_path, starts, ends, axes, steps):
    given = [np.array(part) for part in (starts, ends, axes, steps) if part is not None]
    names = ["starts", "ends", "axes", "steps"][: len(given)]
    node = helper.make_node("Slice", ["x", *names], ["y"])
    path = hand_made(tmp_path / "net.onnx", [node], shape=(2, 6, 8, 8), out=(None,) * 4,
                     weights=zip(names, given, strict=True))  # fmt: skip
    features = images_of((6, 8, 8), count=2)

    found = SliceAxes()(torch.from_numpy(features), *map(torch.from_numpy, given))

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(found.numpy(), session.run(None, {"x": features})[0])


def test_a_mask_that_nobody_reads_does_no_harm(tmp_path):
    weights = {"w": np.random.default_rng(0).standard_normal((4, 3, 1, 1), np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Dropout", ["c"], ["d", "mask"], ratio=0.5),
        helper.make_node("MaxPool", ["d"], ["m", "places"], kernel_shape=[2, 2]),
        helper.make_node("GlobalAveragePool", ["m"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    path = hand_made(tmp_path / "net.onnx", nodes, weights=weights.items(), opset=9)

    module = module_from_onnx(path)

    images = images_of((3, 8, 8))
    with torch.no_grad():
        found = module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, by_onnxruntime(path, images), atol=1e-5)


def test_classes_as_a_map_of_one_by_one_become_a_row(tmp_path):
    weights = {"w": np.random.default_rng(0).standard_normal((4, 3, 1, 1), np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["y"]),
    ]
    path = hand_made(tmp_path / "net.onnx", nodes, weights=weights.items(), out=(1, 4, 1, 1))

    module = module_from_onnx(path)

    images = images_of((3, 8, 8))
    with torch.no_grad():
        found = module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(found, by_onnxruntime(path, images).reshape(4, 4), atol=1e-5)


# What cannot be converted


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not an ONNX file or is damaged"),
        (b"\x00" * 40, "is not an ONNX file or is damaged"),
        (b"\x89PNG\r\n\x1a\n" + b"\x01" * 90, "is not an ONNX file or is damaged"),
    ],
)
def test_what_is_no_onnx_file_is_refused(tmp_path, content, sentence):
    path = tmp_path / "net.onnx"
    path.write_bytes(content)

    with pytest.raises(OnnxImportError, match=sentence):
        image_shape(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(OnnxImportError, match="cannot be read: No such file"):
        image_shape(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("shape", "kind", "sentence"),
    [
        ((1, 3, "h", "w"), TensorProto.FLOAT,
         r"'x' of .* is float \(1, 3, h, w\): export it with fixed channels, height and width"),
        ((1, 64), TensorProto.FLOAT, "must be float32 images"),
        ((1, 3, 400), TensorProto.FLOAT, "write signals as images of height 1"),
        ((1, 3, 8, 8), TensorProto.UINT8, r"is uint8 \(1, 3, 8, 8\): it must be float32"),
        ((1, 8, 8, 3), TensorProto.FLOAT, "channels last"),
        ((4, 3, 8, 8), TensorProto.FLOAT, "a batch of 1, or an open one"),
        (None, TensorProto.FLOAT, "must be float32 images"),
    ],
)  # fmt: skip
def test_an_input_that_is_no_image_is_refused_with_what_would_do(tmp_path, shape, kind, sentence):
    path = hand_made(tmp_path / "net.onnx", [helper.make_node("Identity", ["x"], ["y"])],
                     shape=shape, kind=kind)  # fmt: skip

    with pytest.raises(OnnxImportError, match=sentence):
        module_from_onnx(path)


def test_two_inputs_are_refused(tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        "two",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, 8, 8)) for name in "ab"],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3, 8, 8))],
    )
    onnx.save(helper.make_model(graph, ir_version=8), tmp_path / "net.onnx")

    with pytest.raises(OnnxImportError, match="2 inputs and 1 outputs"):
        module_from_onnx(tmp_path / "net.onnx")


def test_an_output_that_is_no_row_of_classes_is_refused(tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    path = hand_made(tmp_path / "net.onnx", nodes, out=(1, 3, 8, 8))

    with pytest.raises(OnnxImportError, match="writes 3x8x8 numbers for an image"):
        module_from_onnx(path)


def test_an_operator_that_the_converter_lacks_is_named(tmp_path):
    path = small(tmp_path / "net.onnx", activation="Mish", opset=18)

    with pytest.raises(OnnxImportError, match="onnx2torch has no Mish of opset"):
        module_from_onnx(path)


def test_an_operator_of_a_foreign_domain_is_named_with_it(tmp_path):
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["m"]),
        helper.make_node("Wobble", ["m"], ["y"], domain="acme"),
    ]
    weights = {"v": rng.standard_normal((3, 4), np.float32)}
    path = hand_made(tmp_path / "net.onnx", nodes, weights=weights.items(), domains=["acme"])

    with pytest.raises(OnnxImportError, match="onnx2torch has no acme:Wobble"):
        module_from_onnx(path)


def test_a_file_that_says_what_onnxruntime_refuses_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    weights = {"v": rng.standard_normal((7, 4), np.float32)}  # seven rows for three channels
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    path = hand_made(tmp_path / "net.onnx", nodes, weights=weights.items())

    with pytest.raises(OnnxImportError, match=r"net\.onnx"):
        module_from_onnx(path)
