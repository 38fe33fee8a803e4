"""A small classifier on pooled vectors: the cheap way to name reaction types."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from raycrp.arrays import FloatArray
from raycrp.errors import ModelError

State = TypeVar("State")

_TEMPERATURE_BOUNDS = (0.25, 4.0)
_SMALLEST = 1e-12
_SMALLEST_SCALE = 1e-6


@dataclass(frozen=True)
class Head:
    """A trained classifier: standardised vectors, dense layers with ReLU between, softmax.

    Args:
        mean: Mean of the training vectors, shape ``(dim,)``.
        scale: Their standard deviation, shape ``(dim,)``, 1 where it is 0.
        layers: Weight of shape ``(out, in)`` and bias of shape ``(out,)`` of each layer.
        temperature: Divides the logits, so that probabilities are calibrated.
    """

    mean: FloatArray
    scale: FloatArray
    layers: tuple[tuple[FloatArray, FloatArray], ...]
    temperature: float = 1.0

    @property
    def num_types(self) -> int:
        """Number of classes."""
        return len(self.layers[-1][1])

    def predict(self, vectors: FloatArray) -> FloatArray:
        """Probabilities of the classes.

        Args:
            vectors: Shape ``(num_rows, dim)``.

        Returns:
            Shape ``(num_rows, num_types)``, float32, each row summing to 1.
        """
        return np.asarray(softmax(self.logits(vectors), axis=1), dtype=np.float32)

    def logits(self, vectors: FloatArray) -> FloatArray:
        """What the softmax takes, shape ``(num_rows, num_types)``."""
        hidden: npt.NDArray[Any] = (vectors - self.mean) / self.scale
        for weight, bias in self.layers[:-1]:
            hidden = np.maximum(hidden @ weight.T + bias, 0)
        weight, bias = self.layers[-1]
        logits: FloatArray = (hidden @ weight.T + bias) / np.float32(self.temperature)
        return logits

    def save(self, path: Path) -> None:
        """Write the head as one safetensors file."""
        tensors = {
            "mean": self.mean,
            "scale": self.scale,
            "temperature": np.array([self.temperature], dtype=np.float64),
        }
        for i, (weight, bias) in enumerate(self.layers):
            tensors |= {f"layer{i}.weight": weight, f"layer{i}.bias": bias}
        save_file({name: np.ascontiguousarray(t) for name, t in tensors.items()}, path)


def load_head(path: Path) -> Head:
    """A head that ``Head.save`` wrote.

    Raises:
        ModelError: If it is missing or damaged.
    """
    try:
        tensors = load_file(path)
        names = sorted(name for name in tensors if name.endswith(".weight"))
        layers = tuple((tensors[n], tensors[n.replace("weight", "bias")]) for n in names)
        return Head(tensors["mean"], tensors["scale"], layers, float(tensors["temperature"][0]))
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing; run elicit again") from error
    except (SafetensorError, KeyError, OSError) as error:
        raise ModelError(f"{path} is damaged ({error}); run elicit again") from error


def fit_head(
    vectors: FloatArray,
    labels: npt.NDArray[np.integer[Any]],
    *,
    num_types: int,
    valid_vectors: FloatArray,
    valid_labels: npt.NDArray[np.integer[Any]],
    seed: int,
    hidden_size: int = 128,
    max_epochs: int = 40,
    patience: int = 4,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-2,
) -> Head:
    """Train a head on vectors that are there already; the same seed gives the same head.

    Args:
        vectors: Shape ``(num_rows, dim)``, float32.
        labels: Shape ``(num_rows,)``, values in ``[0, num_types)``.
        num_types: Number of classes; some may have no rows.
        valid_vectors: Rows that say when to stop and set the temperature; may be none.
        valid_labels: Their labels.
        seed: Seed of initial weights and of the order of the rows.
        hidden_size: Width of the hidden layer; 0 for a linear head.
        max_epochs: Passes over the rows at most.
        patience: Epochs without a lower validation loss before training stops.
        batch_size: Rows of a step.
        learning_rate: Step size of AdamW.
        weight_decay: Decoupled weight decay.

    Returns:
        The head of the epoch with the lowest validation loss, calibrated.

    Raises:
        ValueError: If there are no rows, or vectors and labels differ in length.
    """
    if len(vectors) == 0 or len(vectors) != len(labels):
        raise ValueError(f"found {len(vectors)} vectors and {len(labels)} labels, expected pairs")
    mean, scale = _standardisation(vectors)
    generator = torch.Generator().manual_seed(seed)
    widths = [vectors.shape[1], *([hidden_size] if hidden_size else []), num_types]
    parameters = _new_parameters(widths, generator=generator)
    epochs = _train_epochs(
        parameters,
        inputs=torch.from_numpy((vectors - mean) / scale),
        targets=torch.from_numpy(np.asarray(labels, dtype=np.int64)),
        optimizer=torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay),
        batch_size=batch_size,
        generator=generator,
    )
    heads = (_freeze(parameters, mean=mean, scale=scale) for _ in islice(epochs, max_epochs))
    if len(valid_vectors) == 0:
        return deque(heads, maxlen=1).pop()
    head = keep_best(
        heads,
        loss=lambda head: log_loss(head.predict(valid_vectors), labels=valid_labels),
        patience=patience,
    )
    temperature = fit_temperature(head.logits(valid_vectors), labels=valid_labels)
    return replace(head, temperature=temperature)


def keep_best(states: Iterable[State], *, loss: Callable[[State], float], patience: int) -> State:
    """The state with the lowest loss, looking no further than patience allows.

    Args:
        states: What training leaves after each epoch; at least one.
        loss: Validation loss of a state.
        patience: Epochs without a lower loss before no more states are asked for.
    """
    best: State | None = None
    best_loss, num_since = np.inf, 0
    for state in states:
        current = loss(state)
        if best is None or current < best_loss:
            best, best_loss, num_since = state, current, 0
        else:
            num_since += 1
        if num_since >= patience:
            break
    if best is None:
        raise ValueError("no state to choose from: training ran for no epoch")
    return best


def fit_temperature(logits: FloatArray, *, labels: npt.NDArray[np.integer[Any]]) -> float:
    """Temperature that makes predicted probabilities fit what came true best.

    Args:
        logits: Or log-probabilities, shape ``(num_rows, num_types)``.
        labels: True classes, shape ``(num_rows,)``.

    Returns:
        Between 0.25 and 4, so that few rows cannot run away with it; 1 without rows.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.
    """
    if len(labels) == 0:
        return 1.0
    result = minimize_scalar(
        lambda log_t: log_loss(softmax(logits / np.exp(log_t), axis=1), labels=labels),
        bounds=np.log(_TEMPERATURE_BOUNDS),
        method="bounded",
    )
    return float(np.exp(result.x))


def log_loss(
    probabilities: npt.NDArray[np.floating[Any]], *, labels: npt.NDArray[np.integer[Any]]
) -> float:
    """Mean negative log-probability of the true classes, in nats."""
    picked = np.take_along_axis(probabilities, np.asarray(labels)[:, None], axis=1)
    return float(-np.log(np.maximum(picked, _SMALLEST)).mean())


def _standardisation(vectors: FloatArray) -> tuple[FloatArray, FloatArray]:
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    scale = vectors.std(axis=0, dtype=np.float64).astype(np.float32)
    # A column that hardly varies would be blown up to noise.
    scale[scale < _SMALLEST_SCALE] = 1.0
    return mean, scale


def _new_parameters(widths: Sequence[int], *, generator: torch.Generator) -> list[torch.Tensor]:
    parameters = []
    for num_in, num_out in pairwise(widths):
        weight = torch.empty(num_out, num_in)
        torch.nn.init.kaiming_uniform_(weight, a=5**0.5, generator=generator)
        parameters += [weight.requires_grad_(), torch.zeros(num_out, requires_grad=True)]
    return parameters


def _train_epochs(
    parameters: Sequence[torch.Tensor],
    *,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    batch_size: int,
    generator: torch.Generator,
) -> Iterator[None]:
    while True:
        for places in torch.randperm(len(inputs), generator=generator).split(batch_size):
            logits = _logits(parameters, inputs[places])
            loss = torch.nn.functional.cross_entropy(logits, targets[places])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        yield


def _logits(parameters: Sequence[torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    hidden = inputs
    for i in range(0, len(parameters) - 2, 2):
        hidden = torch.relu(hidden @ parameters[i].T + parameters[i + 1])
    return hidden @ parameters[-2].T + parameters[-1]


def _freeze(parameters: Sequence[torch.Tensor], *, mean: FloatArray, scale: FloatArray) -> Head:
    arrays = [parameter.detach().numpy().copy() for parameter in parameters]
    return Head(mean, scale, tuple(zip(arrays[::2], arrays[1::2], strict=True)))
