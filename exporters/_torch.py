"""What the exporters of PyTorch networks share: safe checkpoints, random weights, and the export with a feature tap."""

import importlib
import importlib.util
import logging
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import torch
from _common import forget_origin
from torch import nn

from analyzer.errors import InputError, UsageError

OPSET = 20


class Tapped(nn.Module):
    """A network with a second output: what enters its layer `classifier`, (batch, features)."""

    def __init__(self, network: nn.Module, classifier: str) -> None:
        super().__init__()
        self.network = network
        self._entered: list[torch.Tensor] = []
        network.get_submodule(classifier).register_forward_pre_hook(lambda _, given: self._entered.append(given[0]))

    def forward(self, tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self._entered.clear()
        logits = self.network(tensor)
        return logits, self._entered.pop().flatten(1)


def exported(tapped: Tapped, shape: tuple[int, int, int], *, feature: str, **options: Any) -> onnx.ModelProto:
    """The ONNX graph in evaluation: `input` (batch, *shape) -> `logits`, `feature`; any batch, weights inside.

    `options` go to torch.onnx.export. Raises InputError where PyTorch cannot export the network.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it logs which torchvision operators it lacks
    batch = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings():
        # torch's own exporter copies a deprecated class of torch.
        warnings.filterwarnings("ignore", message=".*treespec.*", category=FutureWarning)
        try:
            program = torch.onnx.export(
                tapped.eval(),
                (torch.zeros(2, *shape),),
                dynamo=True,
                dynamic_shapes=({0: batch},),
                input_names=["input"],
                output_names=["logits", feature],
                opset_version=OPSET,
                verbose=False,
                **options,
            )
        except ModuleNotFoundError as e:
            raise UsageError(f"{e.name} is not installed; install the extra of this exporter, see its README") from e
        except Exception as e:  # what the exporter does not know, it says in many ways
            said, name = " ".join(str(e).split()), type(tapped.network).__name__
            raise InputError(f"{name}: PyTorch cannot export this network ({type(e).__name__}: {said:.120})") from e
    model: onnx.ModelProto = program.model_proto
    for tensor in model.graph.initializer:
        tensor.name = tensor.name.removeprefix("network.")
    for node in model.graph.node:
        node.input[:] = [name.removeprefix("network.") for name in node.input]
    forget_origin(model)
    return model


def outputs(tapped: Tapped, feature: str, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What PyTorch answers to `batch`, by the names of the exported graph."""
    with torch.inference_mode():
        logits, entered = tapped.eval()(torch.from_numpy(batch["input"]))
    return {"logits": logits.numpy(), feature: entered.numpy()}


def settle(network: nn.Module, batch: np.ndarray) -> None:
    """Set the batch statistics of a network with random weights to those of `batch`, (N, C, H, W), as training would.

    Without them a deep residual network with random weights doubles its signal in every block.
    """
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    before = [layer.momentum for layer in norms]
    for layer in norms:
        layer.train()
        layer.momentum = None  # the plain average; of one batch
    with torch.inference_mode():
        network(torch.from_numpy(batch))
    for layer, momentum in zip(norms, before, strict=True):
        layer.eval()
        layer.momentum = momentum


def state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint, by safetensors or by torch.load with weights_only: no code in it can run.

    A dictionary inside ("state_dict", "model") is opened, a "module." before every name dropped.
    Raises InputError naming the file.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint; --weights takes none or a .safetensors or PyTorch file")
    try:
        if path.suffix == ".safetensors":
            found: Any = importlib.import_module("safetensors.torch").load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except ModuleNotFoundError as e:
        raise InputError(f"{path}: needs the package safetensors; pip install safetensors") from e
    except Exception as e:  # damaged bytes make either raise nearly anything
        said = " ".join(str(e).split())
        raise InputError(
            f"{path}: cannot be read as weights only ({said:.120}); expected tensors saved by safetensors or torch.save"
        ) from e
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not (isinstance(found, dict) and found and all(isinstance(v, torch.Tensor) for v in found.values())):
        raise InputError(f"{path}: holds no dictionary of named tensors; save model.state_dict()")
    prefix = "module." if all(name.startswith("module.") for name in found) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in found.items()}


def fill(network: nn.Module, state: Mapping[str, torch.Tensor], path: Path, *, ignored: str = r"$^") -> None:
    """Load every tensor of `state` into `network`. Raises InputError naming one that lacks, is extra or does not fit.

    Extra ones whose name matches the regular expression `ignored` are left out.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    kept = {name: tensor for name, tensor in state.items() if name in wanted or not re.match(ignored, name)}
    # Old checkpoints lack the count of batches, which evaluation does not use.
    missing = [
        n for n in wanted if n not in kept and not n.endswith("num_batches_tracked") and not re.match(ignored, n)
    ]
    extra = [n for n in kept if n not in wanted]
    unfit = [n for n in kept if n in wanted and tuple(kept[n].shape) != wanted[n]]
    for names, what in ((missing, "lacks"), (extra, "has, unlike the network,"), (unfit, "has another shape of")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise InputError(f"{path}: {what} {names[0]:.100}{more}; expected the weights of this very network")
    network.load_state_dict(kept, strict=False)


def classes(state: Mapping[str, torch.Tensor], layer: str, default: int) -> int:
    """How many classes the weights of the layer `layer` have."""
    weight = state.get(f"{layer}.weight")
    return default if weight is None else len(weight)


def torchvision() -> ModuleType:
    """The module torchvision, also beside a PyTorch that its operators were not compiled for.

    Such a pair fails at import, because torchvision gives shapes to operators that are not there; classification
    uses none of them, so that declaring them is enough.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as e:
        if "torchvision::" not in str(e):
            raise
    spec = importlib.util.find_spec("torchvision")
    places = (spec and spec.submodule_search_locations) or []
    source = Path(places[0], "_meta_registrations.py").read_text(encoding="utf-8")
    for name in sorted(set(re.findall(r'register_fake\("torchvision::(\w+)"', source))):
        _DECLARED.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")


_DECLARED = torch.library.Library("torchvision", "FRAGMENT")  # forgotten operators go away again: kept here
