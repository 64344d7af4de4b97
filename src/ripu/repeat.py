"""``python -m ripu.repeat RUN/nonfinite/step-....pt``: repeat a failed step, and find the module where it goes wrong.

Training writes such a file when a loss or gradient is not finite. It contains the images and weights; the data set is
not needed.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ripu.io.errors import ConfigError, print_error
from ripu.run import restore
from ripu.run.device import make_device

if TYPE_CHECKING:
    import torch


def repeat(path: Path, accelerator: str = "auto") -> dict[str, Any]:
    """Repeat the step in a file of :func:`ripu.training.step_failure.keep_failed_step`.

    Args:
        path: The file.
        accelerator: ``auto``, ``cpu`` or ``cuda``; results are bit-equal on the device that the step failed on.

    Returns:
        ``terms`` of the loss, ``first``: the first module whose output is not finite (None if all are), and
        ``gradients`` and ``weights``: the parameters whose gradient or value is not finite.

    Raises:
        ConfigError: The file is damaged, or of another kind.
    """
    import torch

    state = restore.read_checkpoint(path)
    if {"step", "micro_batch", "rank", "threads", "batch", "images"} - state.keys():
        raise ConfigError(f"{path} is not the state of a step that failed; name RUN/nonfinite/step-*.pt")
    spec = restore.restored_spec(state)
    device = make_device(accelerator)
    module = restore.restored_module(spec, state, is_trained_on=True).to(device).train()
    batch = {
        domain: {name: tensor.to(device) for name, tensor in part.items()} for domain, part in state["batch"].items()
    }
    first = _watch(module.network)
    module.seed_step(state["step"], state["micro_batch"], state["rank"])
    is_adapting = not module.plan.is_pretraining(state["step"])
    kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    precision = spec.trainer.precision
    terms: dict[str, float] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(state["threads"])  # sums depend on it
    try:
        with torch.autocast(device.type, kinds.get(precision), enabled=precision in kinds):
            for domain in batch:
                part_terms = module.domain_loss(batch, domain, is_adapting=is_adapting)
                total = torch.stack(list(part_terms.values())).sum()
                if total.requires_grad:
                    total.backward()  # type: ignore[no-untyped-call]
                terms |= {name: float(term.detach()) for name, term in part_terms.items()}
    finally:
        torch.set_num_threads(threads)
    parameters = dict(module.network.named_parameters())
    return {
        "step": state["step"],
        "images": state["images"],
        "recorded": state["terms"],
        "terms": terms,
        "first": first[0] if first else None,
        "gradients": [
            name for name, value in parameters.items() if value.grad is not None and not _is_finite(value.grad)
        ],
        "weights": [name for name, value in parameters.items() if not _is_finite(value)],
    }


def _is_finite(value: torch.Tensor) -> bool:
    return bool(value.isfinite().all())


def _watch(network: torch.nn.Module) -> list[str]:
    """Return a list that gets the name of the first module whose output is not finite."""
    import torch

    first: list[str] = []

    def watch(name: str) -> Any:
        def look(part: torch.nn.Module, inputs: Any, output: Any) -> None:
            if not first and isinstance(output, torch.Tensor) and not _is_finite(output):
                first.append(name)

        return look

    for name, part in network.named_modules():
        if not list(part.children()):
            part.register_forward_hook(watch(name))
    return first


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    words = sys.argv[1:] if argv is None else argv
    if len(words) != 1 or words[0].startswith("-"):
        print(__doc__)
        return 0 if words in (["-h"], ["--help"]) else 2
    try:
        found = repeat(Path(words[0]))
    except Exception as error:
        print_error(error)
        return 1
    print(f"step {found['step']}; images:")
    for domain, names in found["images"].items():
        print(f"  {domain}: {', '.join(names)}")
    for name, value in found["terms"].items():
        print(f"  {name:<12} {value:.6g}   (then: {found['recorded'].get(name, float('nan')):.6g})")
    print(f"weights that are not finite: {', '.join(found['weights'][:5]) or 'none'}")
    print(f"first module whose output is not finite: {found['first'] or 'none'}")
    print(f"gradients that are not finite: {len(found['gradients'])} ({', '.join(found['gradients'][:5]) or 'none'})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
