"""Bottleneck adapters, which HF PEFT does not have: a plain torch implementation, hooked into transformers' modules, computes the
same outputs and gradients and trains the same way."""

import json

import pytest
import torch
from safetensors.torch import save_file
from tiny_llama import save_llama

from method_support import base_model, toml, train, train_there
from model_support import apart, farthest, losses_of, model_answer, peer_answer, random_examples, within

# options, sites of a layer, units of the bottleneck (hidden size 32)
CASES = [
    ({"reduction_factor": 8}, ["mlp"], 4),
    ({"variant": "houlsby", "bottleneck_size": 5, "non_linearity": "gelu", "scaling": 2.0}, ["self_attn", "mlp"], 5),
    ({"variant": "parallel", "non_linearity": "swish", "layers_to_transform": [1], "init_weights": False}, ["mlp"], 2),
    ({"variant": "houlsby", "non_linearity": "tanh", "reduction_factor": 3}, ["self_attn", "mlp"], 10),
]
every = pytest.mark.parametrize("options,sites,width", CASES, ids=range(len(CASES)))
ACTIVATIONS = {"relu": torch.relu, "gelu": torch.nn.functional.gelu, "swish": torch.nn.functional.silu, "tanh": torch.tanh}


class Bottlenecked(torch.nn.Module):
    """transformers' model, with the adapter of `tensors` around its modules; parameters have the names of the file."""

    def __init__(self, model, options, sites, tensors):
        super().__init__()
        self.model = model.requires_grad_(False)
        self.tensors = {name: torch.nn.Parameter(tensor.clone()) for name, tensor in tensors.items()}
        act = ACTIVATIONS[options.get("non_linearity", "relu")]
        for index in options.get("layers_to_transform", range(len(model.model.layers))):
            for site in sites:
                prefix = f"base_model.model.model.layers.{index}.{site}."
                maps = [self.tensors[prefix + name] for name in
                        ("adapter_down.weight", "adapter_down.bias", "adapter_up.weight", "adapter_up.bias")]
                model.model.layers[index].get_submodule(site).register_forward_hook(
                    self.hook(act, maps, options.get("scaling", 1.0), options.get("variant") == "parallel"))

    @staticmethod
    def hook(act, maps, scaling, parallel):
        down, down_bias, up, up_bias = maps

        def around(module, inputs, output):
            y = output[0] if isinstance(output, tuple) else output
            x = inputs[0] if parallel else y
            y = y + scaling * (act(x @ down.T + down_bias) @ up.T + up_bias)
            return (y, *output[1:]) if isinstance(output, tuple) else y

        return around

    def parameters(self):
        return self.tensors.values()

    def forward(self, **inputs):
        return self.model(**inputs)


def random_tensors(options, sites, width, hidden=32):
    generator = torch.Generator().manual_seed(1)
    shapes = {"adapter_down.weight": (width, hidden), "adapter_down.bias": (width,),
              "adapter_up.weight": (hidden, width), "adapter_up.bias": (hidden,)}
    return {f"base_model.model.model.layers.{layer}.{site}.{name}": 0.3 * torch.randn(shape, generator=generator)
            for layer in options.get("layers_to_transform", [0, 1]) for site in sites for name, shape in shapes.items()}


@every
def test_outputs_and_gradients_equal_reference(tmp_path, options, sites, width):
    save_llama(tmp_path / "model", attention_bias=True, mlp_bias=True)
    tensors = random_tensors(options, sites, width)
    (tmp_path / "adapter").mkdir()
    save_file(tensors, tmp_path / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"peft_type": "BOTTLENECK"} | options))
    model, examples = Bottlenecked(base_model(tmp_path), options, sites, tensors), random_examples(258)
    logits, loss = peer_answer(model, examples)
    loss.backward()
    for fused in (True, False):
        ours = model_answer(tmp_path, tmp_path / "model", examples, adapter=tmp_path / "adapter", fused=fused)
        within("logits", apart(ours["logits"], logits.detach()), 2e-5)
        assert {name for name in ours if name.startswith("grad.")} == {"grad." + name for name in tensors}
        for name, parameter in model.tensors.items():
            within("gradients", apart(ours["grad." + name], parameter.grad), 1e-4)


@every
def test_training_equals_hf_peft(run, tmp_path, options, sites, width):
    save_llama(tmp_path / "model")
    start, tensors, config = train(run, tmp_path, "bottleneck", options, name="start", lr=0.0)
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        name: tensor.shape for name, tensor in random_tensors(options, sites, width).items()}
    assert all(config[key] == value for key, value in options.items()) and config["peft_type"] == "BOTTLENECK"
    ours, trained, _ = train(run, tmp_path, "bottleneck", options, steps=4)
    model = Bottlenecked(base_model(tmp_path), options, sites, tensors)
    within("losses", farthest(losses_of(ours), train_there(tmp_path, model, 4)), 1e-4)
    for name, tensor in trained.items():
        torch.testing.assert_close(tensor, model.tensors[name].detach(), rtol=1e-3, atol=2e-4)


@every
def test_selfcheck(run, options, sites, width):
    sets = [word for key, value in options.items() for word in ("--set", f"{key}={toml(value)}")]
    printed = run("peft-run", "selfcheck", "adapter/bottleneck", *sets).stdout
    assert "BROKEN" not in printed and "gradients match finite differences" in printed


def test_merge_is_refused(run, tmp_path):
    save_llama(tmp_path / "model")
    ours, _, _ = train(run, tmp_path, "bottleneck", {})
    printed = run("peft-run", "merge", "--model", tmp_path / "model", "--adapter", ours, "--output", tmp_path / "out", code=3).stderr
    assert "'model.layers.0.mlp' has no weights into which its adapter could be merged" in printed
    assert not (tmp_path / "out").exists()
