"""Graphs: what is refused and how, what a module keeps, and how a translated model trains, saves and takes batches."""

from __future__ import annotations

import copy
import functools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from multitl_torch.fx import translate  # noqa: E402
from multitl_torch.insides import arguments_of  # noqa: E402
from multitl_torch.torchvision import import_torchvision  # noqa: E402
from torch import nn  # noqa: E402

from multitl.contracts import Translation  # noqa: E402
from multitl.errors import BackendError, TranslationError  # noqa: E402
from multitl.translation.layouts import to_original  # noqa: E402


class Block(nn.Module):
    """A little of everything that has weights: convolutions, norms, attention, a class token, a layer scale, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6)
        self.depthwise, self.scale = nn.Conv2d(6, 12, 3, padding=1, groups=6), nn.Parameter(torch.ones(12, 1, 1))
        self.norm, self.token = nn.LayerNorm(12), nn.Parameter(torch.zeros(1, 1, 12))
        self.attention, self.head = nn.MultiheadAttention(12, 3, batch_first=True), nn.Linear(12, 5)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        x = torch.relu(self.bn(self.conv(x)))
        x = (self.depthwise(x) * self.scale).flatten(2).transpose(1, 2)
        x = self.norm(torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1))
        return self.head((x + self.attention(x, x, x, need_weights=False)[0])[:, 0])


@functools.cache
def block() -> nn.Module:
    torch.manual_seed(0)
    module = Block()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
        module.bn.running_mean.normal_()
        module.bn.running_var.uniform_(0.5, 2)
    return module.eval()


@functools.cache
def translated_block() -> Translation:
    return translate(block(), torch.zeros(1, 3, 9, 12))


def images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, 9, 12, generator=torch.Generator().manual_seed(count))


def outputs(model: keras.Model, x: torch.Tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(model(x.permute(0, 2, 3, 1).numpy(), training=False))


def wanted(module: nn.Module, x: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return module(x).numpy()


# --- what comes out ---


@pytest.mark.every_backend
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 12])
def test_one_model_takes_any_batch(count: int) -> None:
    """12 is also the number of channels: sums with the batch must not be taken for biases."""
    x = images(count)
    np.testing.assert_allclose(outputs(translated_block().model, x), wanted(block(), x), atol=1e-5)


def test_every_tensor_of_the_state_dict_goes_back_bit_by_bit() -> None:
    translation, state = translated_block(), block().state_dict()
    back = {}
    for weight in translation.weights:
        (variable,) = (v for v in translation.model.get_layer(weight.layer).weights if v.name == weight.variable)
        back[weight.name] = to_original(keras.ops.convert_to_numpy(variable.value), weight)
    for name, value in back.items():
        assert value.shape == tuple(state[name].shape), name
        np.testing.assert_array_equal(value, state[name].numpy(), err_msg=name)
    assert set(translation.unused) == {"unused.weight", "unused.bias", "bn.num_batches_tracked"}
    assert back.keys() | set(translation.unused) == state.keys()
    assert len(back) == len(translation.weights)


def test_parameters_train_and_buffers_do_not() -> None:
    translation = translated_block()
    trainable = {id(v) for v in translation.model.trainable_variables}
    names = set()
    for weight in translation.weights:
        (variable,) = (v for v in translation.model.get_layer(weight.layer).weights if v.name == weight.variable)
        names |= {weight.name} if id(variable) in trainable else set()
    assert names == {name for name, _ in block().named_parameters() if not name.startswith("unused")}


def test_batch_norm_keeps_its_momentum_and_epsilon() -> None:
    module = nn.Sequential(nn.BatchNorm2d(3, eps=0.01, momentum=0.3))
    (layer,) = (layer for layer in translate(module, torch.zeros(1, 3, 4, 5)).model.layers if layer.weights)
    assert (layer.momentum, layer.epsilon) == pytest.approx((0.7, 0.01))


def test_several_outputs_keep_their_order() -> None:
    class Two(nn.Module):
        def forward(self, x):
            return {"mean": x.mean((2, 3)), "map": [x * 2, x.amax((2, 3))]}

    x = images(2)
    model = translate(Two(), x).model
    mean, double, largest = (keras.ops.convert_to_numpy(y) for y in model(x.permute(0, 2, 3, 1).numpy()))
    np.testing.assert_allclose(mean, x.mean((2, 3)), atol=1e-6)
    np.testing.assert_array_equal(double, x * 2)
    np.testing.assert_array_equal(largest, x.amax((2, 3)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_become_float32(dtype: torch.dtype) -> None:
    half = copy.deepcopy(block()).to(dtype)
    model = translate(half, images(1).to(dtype)).model
    assert {v.dtype for v in model.weights} == {"float32"}
    x = images(2)
    np.testing.assert_allclose(outputs(model, x), wanted(half.float(), x), atol=1e-5)


@pytest.mark.every_backend
def test_a_saved_model_loads_in_plain_keras(tmp_path) -> None:
    """In a process that has not imported multitl, on every backend."""
    x = images(2)
    translated_block().model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", x.permute(0, 2, 3, 1).numpy())
    code = (
        "import sys, keras, numpy as np\n"
        "y = keras.models.load_model('model.keras').predict(np.load('x.npy'), verbose=0)\n"
        "assert not any(name.startswith('multitl') for name in sys.modules)\n"
        "np.save('y.npy', y)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ, check=True, timeout=300)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), wanted(block(), x), atol=1e-5)


# --- the module is left as it was ---


def test_the_module_is_left_untouched() -> None:
    module = copy.deepcopy(block()).train()
    module.bn.eval()
    module.dropped = torch.nn.Identity()
    flags = {name: part.training for name, part in module.named_modules()}
    state = {name: value.clone() for name, value in module.state_dict().items()}
    attributes = {name: set(vars(part)) for name, part in module.named_modules()}
    requires = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    fast_path = torch.backends.mha.get_fastpath_enabled()

    translate(module, images(1))

    assert {name: part.training for name, part in module.named_modules()} == flags
    assert {name: set(vars(part)) for name, part in module.named_modules()} == attributes
    assert {name: parameter.requires_grad for name, parameter in module.named_parameters()} == requires
    assert torch.backends.mha.get_fastpath_enabled() == fast_path
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_training_the_translation_leaves_the_original_alone() -> None:
    module = copy.deepcopy(block())
    model = translate(module, images(1)).model
    for variable in model.weights:
        variable.assign(np.zeros(variable.shape))
    for name, value in block().state_dict().items():
        assert torch.equal(module.state_dict()[name], value), name


def test_a_module_that_fails_is_left_untouched_too() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = import_torchvision().ops.StochasticDepth(0.5, "row")

        def forward(self, x):
            raise RuntimeError("no such luck")

    module = Fails().train()
    with pytest.raises(TranslationError, match="no such luck"):
        translate(module, images(1))
    assert module.training and module.drop.training and "forward" not in vars(module.drop)


# --- what is refused ---


def test_control_flow_that_depends_on_values_is_refused() -> None:
    class Decides(nn.Module):
        def forward(self, x):
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(TranslationError, match=r"Decides cannot be traced(.|\n)*control flow"):
        translate(Decides(), images(1))


def test_a_fixed_batch_size_is_refused() -> None:
    class Fixed(nn.Module):
        def forward(self, x):
            return x.reshape(3, -1) * torch.ones(3, 1)

    with pytest.raises(TranslationError, match="one batch size only") as caught:
        translate(Fixed(), images(1))
    assert "x.shape[0]" in str(caught.value)


def test_a_batch_size_that_is_a_number_is_read_off_two_traces() -> None:
    class Counts(nn.Module):
        def forward(self, x):
            return x + torch.ones(1, 1, 1, 1).expand(len(x), -1, -1, -1)

    x = images(4)
    np.testing.assert_allclose(outputs(translate(Counts(), images(1)).model, x), wanted(Counts(), x), atol=1e-6)


def test_all_missing_ops_are_listed_with_their_nodes() -> None:
    class Odd(nn.Module):
        def forward(self, x):
            known = torch.fft.fft(torch.ones(3)).real.sum()  # computed by PyTorch: needs no translation
            return torch.digamma(x) + torch.digamma(x.exp()) * known, torch.special.i0(x)

    with pytest.raises(TranslationError) as caught:
        translate(Odd(), images(1))
    message = str(caught.value)
    assert "Odd cannot be translated: 2 of its operations" in message
    assert "digamma.default (2): digamma, digamma_1" in message and "special_i0.default (1): special_i0" in message
    assert caught.value.missing == ("digamma.default", "special_i0.default")


def test_arguments_without_translation_are_listed_all_at_once() -> None:
    class Odd(nn.Module):
        def forward(self, x):
            a = nn.functional.max_pool2d(x, 2, dilation=2)
            b = nn.functional.pad(x, (-1, 1, 1, 1), mode="replicate")
            return a.relu(), b + 1, nn.functional.max_pool2d(x, 3, dilation=2)

    with pytest.raises(TranslationError) as caught:
        translate(Odd(), images(1))
    assert "max_pool2d.default (max_pool2d with dilation) (2): max_pool2d, max_pool2d_1" in str(caught.value)
    assert "pad.default (pad with negative widths) (1): pad" in str(caught.value)


def test_a_torch_that_does_not_tell_its_ops_arguments_is_named() -> None:
    assert [one.name for one in arguments_of(torch.ops.aten.relu.default)] == ["self"]
    with pytest.raises(BackendError, match=r"pip install 'torch==2\.13\.\*'"):
        arguments_of(torch.relu)


def test_indices_of_maxima_are_refused_only_where_they_are_read() -> None:
    class Where(nn.Module):
        def forward(self, x):
            return nn.functional.max_pool2d(x, 2, return_indices=True)[1].float()

    with pytest.raises(TranslationError, match=r"output 1 of max_pool2d_with_indices.default \(1\): getitem_1"):
        translate(Where(), images(1))


# --- training ---


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.by_image = nn.Dropout(0.5), import_torchvision().ops.StochasticDepth(0.5, "row")
        self.at_once = import_torchvision().ops.StochasticDepth(0.5, "batch")

    def forward(self, x):
        return self.dropout(x), self.by_image(x), self.at_once(x)


@pytest.mark.every_backend
def test_dropout_and_stochastic_depth_act_in_training_only() -> None:
    module = Noisy()
    model = translate(module, torch.zeros(1, 3, 9, 12)).model
    ones = np.ones((40, 9, 12, 3), "float32")
    for y in model(ones, training=False):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(y), np.ones((40, 3, 9, 12)))
    dropped, by_image, at_once = (keras.ops.convert_to_numpy(y) for y in model(ones, training=True))
    assert set(np.unique(dropped)) == set(np.unique(by_image)) == {0, 2}  # what is kept is scaled by 1 / (1 - 0.5)
    assert 0.45 < (dropped > 0).mean() < 0.55
    kept = by_image.reshape(40, -1)
    assert (kept == kept[:, :1]).all() and 5 < (kept[:, 0] > 0).sum() < 35  # whole images
    assert len(np.unique(at_once)) == 1  # the whole batch


def one_step(model: keras.Model, x: torch.Tensor) -> None:
    """Of gradient descent, with a loss that moves everything."""
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.train_on_batch(x.permute(0, 2, 3, 1).numpy(), np.ones(model.compute_output_shape((len(x), 9, 12, 3))))


def bn_and_conv() -> nn.Sequential:
    torch.manual_seed(0)
    module = nn.Sequential(nn.BatchNorm2d(3, momentum=0.3), nn.Conv2d(3, 4, 3))
    with torch.no_grad():
        module[0].running_mean.normal_()
        module[0].running_var.uniform_(0.5, 2)
    return module


@pytest.mark.every_backend
def test_frozen_batch_norm_keeps_its_statistics_to_the_bit() -> None:
    model = translate(bn_and_conv(), images(1)).model
    frozen, trained = model.get_layer("0"), model.get_layer("1")
    frozen.trainable = False
    before, kernel = frozen.get_weights(), trained.get_weights()[0]
    for count in (3, 5):
        one_step(model, images(count))
    for a, b in zip(before, frozen.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(kernel, trained.get_weights()[0])


@pytest.mark.every_backend
def test_unfrozen_batch_norm_moves_with_pytorchs_momentum() -> None:
    """PyTorch's momentum is the weight of the new value; of the variance Keras takes the biased one."""
    module, x = bn_and_conv(), images(6)
    model = translate(module, images(1)).model
    mean, variance = (buffer.clone() for buffer in (module[0].running_mean, module[0].running_var))
    one_step(model, x)
    layer = model.get_layer("0")
    module.train()(x)
    np.testing.assert_allclose(layer.moving_mean, module[0].running_mean, atol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, 0.7 * variance + 0.3 * x.var((0, 2, 3), correction=0), atol=1e-6)
    assert not np.allclose(layer.moving_mean, mean)


def test_a_kernel_that_is_normalised_is_folded_into_a_layer_that_trains() -> None:
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3, bias=False))
    translation = translate(nn.Sequential(normed, nn.ReLU()), images(1))
    layer = translation.model.get_layer("0")
    assert isinstance(layer, keras.layers.Conv2D) and layer.trainable_variables
    np.testing.assert_allclose(layer.kernel, normed.weight.detach().permute(2, 3, 1, 0), atol=1e-6)
    assert translation.stages[0].layers == ("0",)
    assert set(translation.unused) == {"0.parametrizations.weight.original0", "0.parametrizations.weight.original1"}


# --- no data is moved for nothing ---


def transposes(name: str) -> int:
    module = getattr(import_torchvision().models, name)(weights=None)
    size = 224 if name == "vit_b_16" else 64
    return sum(
        type(operation).__name__ == "Transpose"
        for operation in translate(module, torch.zeros(1, 3, size, size)).model.operations
    )


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("resnet50", 0),
        ("mobilenet_v3_large", 0),
        ("efficientnet_b0", 0),
        ("convnext_tiny", 0),
        ("vit_b_16", 48),
        ("swin_t", 32),
    ],
)
def test_transposes_are_only_those_that_the_graph_needs(name: str, most: int) -> None:
    assert transposes(name) <= most
