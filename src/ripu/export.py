"""``python -m ripu.export checkpoint=RUN output=FILE``: the network of a run for other programs.

The exported network is compared with the original before anything is written.
"""

# ruff: noqa: E402

from __future__ import annotations

from ripu.io.signals import guard_start

guard_start(__name__)  # before the imports that take long

from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from ripu.config.app import command, quiet_libraries
from ripu.config.validate import check_values
from ripu.io.errors import ConfigError, exit_on_error
from ripu.run.trained import open_for_export, read_model_folder

SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2", "huggingface": ""}
"""Format -> the ending of its file; huggingface makes a folder."""

PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch_export": (), "huggingface": ("safetensors",)}
"""Format -> the packages that it needs besides those that this one always has."""


def export(cfg: DictConfig) -> float:
    """Export the network of a run or checkpoint.

    Returns:
        The largest difference between a logit of the exported network and of the original.

    Raises:
        ConfigError: The checkpoint or the output cannot be used, or a package is missing.
        ExportError: The network cannot be exported, or the exported one computes something else.
        WriteError: The output cannot be written; nothing is left behind.
    """
    check_values(cfg, "export")
    out = Path(cfg.output)
    if out.suffix != SUFFIXES[cfg.format]:
        ending = SUFFIXES[cfg.format] or "no dot and letters: it is a folder"
        raise ConfigError(f"output={out}: the name for format={cfg.format} ends in {ending}; name such a one")
    if out.exists():
        raise ConfigError(f"output={out} exists already; remove it, or name another file")
    if cfg.format == "huggingface" and cfg.size is not None:
        raise ConfigError(
            f"size={list(cfg.size)} has no meaning for format=huggingface, which takes any size; leave it out"
        )
    from ripu.inference.onnx_network import check_installed

    check_installed(*PACKAGES[cfg.format])
    spec, network, described = open_for_export(cfg.checkpoint)
    described = replace(described, fixed_size=None if cfg.size is None else (cfg.size[0], cfg.size[1]))
    if cfg.format == "huggingface":
        from ripu.exporting.model_folder import write_model_folder

        return write_model_folder(network, spec.model, described, out, read_model_folder)
    if cfg.format == "torch_export":
        from ripu.exporting.torch_file import write_torch_export

        return write_torch_export(network, described, out)
    from ripu.exporting.onnx_file import write_onnx

    return write_onnx(network, described, out)


@command("export")
def main(cfg: DictConfig) -> None:
    """Run the command line."""
    quiet_libraries()
    with exit_on_error():
        difference = export(cfg)
    sizes = "any batch size, height and width" if cfg.size is None else f"any batch size, {cfg.size[0]} x {cfg.size[1]}"
    if cfg.format == "torch_export" and cfg.size is None:
        sizes += " (multiples of preprocessing.multiple in its description)"
    print(f"exported to {cfg.output}: {sizes}; logits differ from the checkpoint's by at most {difference:.1e}")


if __name__ == "__main__":
    main()
