"""Exported ONNX files as networks, run by onnxruntime."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ripu.inference.description import Description, read_description
from ripu.io.errors import ConfigError

KEY = "ripu"
"""Key of the description among the metadata of the file."""

IMAGE, LOGITS = "image", "logits"
"""Names of the input and the output."""

_log = logging.getLogger(__name__)


class OnnxNetwork(nn.Module):
    """The network in an exported file; see :class:`ripu.models.interface.SegmentationNetwork`.

    Attributes:
        description: What the file says about the network.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        """Open a file.

        Args:
            path: The file.
            device: CUDA runs on that device if onnxruntime can; everything else, on the CPU.

        Raises:
            ConfigError: onnxruntime is missing, or the file is damaged or was not written by ``ripu.export``.
        """
        super().__init__()
        self._session = open_session(path, device)
        stored = self._session.get_modelmeta().custom_metadata_map
        if KEY not in stored:
            raise ConfigError(
                f"{path} has no entry {KEY!r} in its metadata, which tells the classes and the preprocessing; give a "
                "file that python -m ripu.export has written"
            )
        self.description: Description = read_description(stored[KEY], path)
        self._path = path
        self.num_classes = self.description.taxonomy.num_classes
        self.mean, self.std = self.description.mean, self.description.std

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, C, H, W) of normalised images (B, 3, H, W), on the device of the images.

        A file of fixed size takes images up to that size; smaller ones are padded (right and bottom, border repeated)
        and the logits are cropped.
        """
        height, width = int(image.shape[-2]), int(image.shape[-1])
        if (size := self.description.fixed_size) is not None:
            if height > size[0] or width > size[1]:
                raise ConfigError(
                    f"{self._path} takes images of {size[0]} x {size[1]} pixels, not {height} x {width}; use "
                    f"tile=[{size[0]},{size[1]}] or smaller, or export the network without size"
                )
            image = F.pad(image, (0, size[1] - width, 0, size[0] - height), mode="replicate")
        logits = torch.from_numpy(run_session(self._session, image))
        if logits.ndim != 4 or logits.shape[1] != self.num_classes:
            raise ConfigError(
                f"{self._path} returns {tuple(logits.shape)} for {self.num_classes} classes; export the network again"
            )
        return logits[..., :height, :width].to(image.device)


def open_session(model: Path | bytes, device: torch.device | None = None) -> Any:
    """Open a file, or the bytes of one, in onnxruntime, with as many threads as PyTorch has; the CPU by default.

    Raises:
        ConfigError: onnxruntime is missing, or the file is damaged.
    """
    check_installed("onnxruntime")
    import onnxruntime

    providers: list[Any] = ["CPUExecutionProvider"]
    if device is not None and device.type != "cpu":
        if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
        else:
            _log.warning("this onnxruntime cannot use %s; the network runs on the CPU", device)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors, which are raised below
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), sess_options=options, providers=providers
        )
    except Exception as error:  # its errors have no common class but Exception
        name = "the exported network" if isinstance(model, bytes) else model
        raise ConfigError(
            f"{name} cannot be read as an ONNX file ({' '.join(str(error).split())[:200]}); copy it again, or export "
            "the network again"
        ) from error


def run_session(session: Any, image: Tensor) -> Any:
    """Return the logits, a float32 array (B, C, H, W), of normalised images (B, 3, H, W)."""
    return session.run([LOGITS], {IMAGE: image.detach().float().cpu().numpy()})[0]


def check_installed(*packages: str) -> None:
    """Raise a ConfigError that names the extra if a package is missing."""
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise ConfigError(
            f"exported files need {' and '.join(missing)}, which is not installed; install the extra: "
            "pip install 'ripu[export]'"
        )
