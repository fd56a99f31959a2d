"""A virtual node: which GPUs serve which model, through which sensors, with which faults."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from inference_energy.bench.parts.catalogue import DEVICES
from inference_energy.bench.parts.devices import Device
from inference_energy.bench.parts.engine import EngineSettings
from inference_energy.bench.parts.faults import Faults
from inference_energy.bench.parts.section import Part
from inference_energy.bench.parts.sensors import Sensors
from inference_energy.bench.parts.shapes import SHAPES, ModelShape
from inference_energy.errors import InputError


class Node(Part):
    """One virtual machine, or several alike.

    `model` is the name of a known shape, whose weights then have `weight_bits`, or a shape. `tensor_parallel` GPUs of a
    machine share the model; `nodes` machines hold a copy each and take requests in turn. `power_limit_w` caps each GPU
    below its own limit. `seed` draws everything that is random but the load.
    """

    gpu: str = "h100"
    model: str | ModelShape = "llama-3.1-8b"
    weight_bits: Literal[4, 8, 16] = 16
    tensor_parallel: int = Field(1, ge=1, le=8)
    nodes: int = Field(1, ge=1)
    power_limit_w: float | None = Field(None, gt=0)
    engine: EngineSettings = EngineSettings()
    sensors: Sensors = Sensors()
    faults: Faults = Faults()
    seed: int = Field(1, ge=0)

    @property
    def device(self) -> Device:
        """The GPU's parameters, with the power limit of this node.

        Raises:
            InputError: no such GPU.
        """
        if self.gpu not in DEVICES:
            raise InputError(f"bench: gpu: {self.gpu!r} is not known; write one of {', '.join(DEVICES)}")
        device = DEVICES[self.gpu]
        limit_w = min(self.power_limit_w or device.power_limit_w, device.power_limit_w)
        return device.model_copy(update={"power_limit_w": limit_w})

    @property
    def shape(self) -> ModelShape:
        """The model's shape, with the weights of this node where it is a known one.

        Raises:
            InputError: no such model.
        """
        if isinstance(self.model, ModelShape):
            return self.model
        if self.model not in SHAPES:
            raise InputError(f"bench: model: {self.model!r} is not known; write one of {', '.join(SHAPES)}")
        return SHAPES[self.model].model_copy(update={"weight_bytes_per_parameter": self.weight_bits / 8})

    @classmethod
    def parse(cls, content: str | dict[str, Any]) -> "Node":
        """A node from JSON text or a mapping.

        Raises:
            InputError: a key is unknown or a value does not fit; the message names it.
        """
        try:
            return cls.model_validate_json(content) if isinstance(content, str) else cls.model_validate(content)
        except ValidationError as error:
            faults = [
                ": ".join(["bench", *filter(None, [".".join(map(str, fault["loc"]))]), fault["msg"]])
                for fault in error.errors()
            ]
            raise InputError("; ".join(faults)) from error

    @classmethod
    def read(cls, path: Path) -> "Node":
        """A node from a JSON file.

        Raises:
            InputError: the file cannot be read, or does not fit.
        """
        try:
            return cls.parse(path.read_text())
        except (OSError, InputError) as error:
            raise InputError(f"{path}: {error}") from error
