"""The tables that a person reads."""

from __future__ import annotations

from ripu.report.summary import summary


def scores(miou: float, miou2: float) -> dict[str, object]:
    return {"mIoU": miou, "mIoU2": miou2, "per_class_iou": {"road": miou2, "car": miou2, "wall": None}}


def test_further_means_have_a_column_and_a_line() -> None:
    results = {
        **scores(50.0, 60.0),
        "evaluations": [
            {"step": 2, "labelled_fraction": 0.0, **scores(10.0, 20.0)},
            {"step": 3, "labelled_fraction": 0.0, **scores(11.0, 21.0)},
        ],
        "rounds": [{"step": 3}],
        "max_steps": 7,
        "labelled_fraction": 0.02,
    }
    lines = [line.split() for line in summary(results, ("mIoU2",)).splitlines() if line]
    assert lines[0] == ["step", "labelled", "mIoU", "mIoU2"]
    assert ["source", "only", "2", "0.00%", "10.00", "20.00"] in lines
    assert ["final", "7", "2.00%", "50.00", "60.00"] in lines
    assert lines[-2:] == [["mean", "10.00", "50.00"], ["mIoU2", "20.00", "60.00"]]
    plain = summary(results)
    assert "mIoU2" not in plain
    assert plain.splitlines()[-1].split() == ["mean", "10.00", "50.00"]


def test_an_evaluation_after_joint_training_is_not_called_source_only() -> None:
    evaluations = [{"step": 3, "labelled_fraction": 0.0, **scores(10.0, 20.0)}]
    results = {**scores(5.0, 6.0), "evaluations": evaluations, "rounds": [{"step": 3}], "max_steps": 7}
    results |= {"labelled_fraction": 0.02, "pretrain_steps": 0}
    assert "before round 1" in summary(results)
    assert "source only" not in summary(results)
    assert "source only" in summary({**results, "pretrain_steps": 3})
    assert "source only" in summary({**results, "pretrain_steps": 3, "start": {"run": None, "labels": "masks"}})
    goes_on = summary({**results, "pretrain_steps": 3, "start": {"run": "runs/first", "labels": None}})
    assert "source only" not in goes_on  # its network has seen the target


def test_a_run_without_rounds_counts_renewals() -> None:
    evaluations = [{"step": step, "labelled_fraction": 0.0, **scores(10.0, 20.0)} for step in (1, 2, 4)]
    results = {**scores(5.0, 6.0), "evaluations": evaluations, "rounds": [], "max_steps": 7, "labelled_fraction": 0.0}
    lines = summary({**results, "pretrain_steps": 1, "renewal_steps": [2, 4]}).splitlines()
    names = [" ".join(line.split()[:-3]) for line in lines if "%" in line and "(" not in line]
    assert names == ["source only", "before renewal 1", "after renewal 1", "final"]
