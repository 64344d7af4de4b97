"""What people see on a terminal, and how soon."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ripu.__main__ import COMMANDS
from ripu.__main__ import main as list_commands
from ripu.datasets.taxonomy import CITYSCAPES19
from ripu.io import console
from ripu.io.console import Progress, time_left, track
from ripu.report.summary import summary, table
from running import ROUNDS, command, environment, tiny


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_come_now_and_then_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    progress = Progress("reading", 100)
    for done in range(1, 101):
        now += 1.0
        progress(done)
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 100 // 16
    assert lines[0] == "reading: 16/100 images, 1.0 images/s, about 84 s left"
    assert not re.search(r"[\r\x1b]", err)


def test_short_work_and_silent_work_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(range(5), "counting", 5)) == [0, 1, 2, 3, 4]
    with Progress("nothing", 3, is_enabled=False) as progress:
        progress.add(3)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with Progress("reading", 3) as progress:
        progress.add()
        progress.say("one is damaged")
        progress(3)
    shown = screen.getvalue()
    assert "reading" in shown
    assert "one is damaged\n" in shown
    assert shown.rstrip(" ").endswith("\r")
    monkeypatch.setenv("TERM", "dumb")
    before = screen.getvalue()
    Progress("reading", 3)(1)
    assert screen.getvalue() == before


def test_time_left_in_units_that_people_use() -> None:
    assert [time_left(1, 11, seconds) for seconds in (1.0, 60.0, 3600.0)] == [
        "about 10 s left", "about 10.0 min left", "about 10.0 h left",
    ]  # fmt: skip


def results(num_rounds: int) -> dict[str, object]:
    iou = {name: 10.0 + number for number, name in enumerate(CITYSCAPES19.class_names)} | {"train": None}
    scores = {"mIoU": 33.25, "per_class_iou": iou, "mIoU13": 40.5}
    evaluations = [{**scores, "step": 100 * n, "labelled_fraction": 0.01 * n} for n in range(num_rounds + 2)]
    return {
        **scores,
        "evaluations": evaluations,
        "rounds": [{"step": 100 * n} for n in range(1, num_rounds + 1)],
        "max_steps": 40_000,
        "labelled_fraction": 0.022,
    }


@pytest.mark.parametrize("num_rounds", [0, 5, 40])
@pytest.mark.parametrize("subsets", [(), ("mIoU13",)])
def test_the_last_words_of_a_run_fit_a_screen(num_rounds: int, subsets: tuple[str, ...]) -> None:
    text = summary(results(num_rounds), subsets)
    lines = text.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    for name in CITYSCAPES19.class_names:
        assert name in text
    assert re.search(r"^source only +0 +0.00% +33.25", text, re.M)
    assert re.search(r"^final +40000 +2.20% +33.25", text, re.M)
    assert (f"after round {num_rounds}" in text) == (num_rounds > 0)


def test_classes_in_columns_keep_their_numbers() -> None:
    iou = {"a": 1.0, "a class with a very long name": 2.0, "b": None}
    text = table([("first", {"per_class_iou": iou, "mIoU": 1.5}), ("final", {"per_class_iou": iou, "mIoU": 2.5})])
    assert re.search(r"\ba +1\.0 +1\.0\b", text)
    assert re.search(r"a class with a very~ +2\.0 +2\.0", text)
    assert re.search(r"\bb +- +-", text)
    assert re.search(r"mean +1\.50 +2\.50", text)


def test_commands_are_listed_and_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert list_commands([]) == 0
    shown = capsys.readouterr().out
    root = Path(console.__file__).parents[1]
    for name in COMMANDS:
        assert f"python -m ripu.{name} " in shown
        place = root / name.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), name
    entry_points = {path.stem for path in root.glob("*.py") if "\ndef main(" in path.read_text()} - {"__main__"}
    assert entry_points <= set(COMMANDS)
    assert max(map(len, shown.splitlines())) <= 100
    assert list_commands(["evalute"]) == 2
    assert "did you mean evaluate?" in capsys.readouterr().err


@pytest.mark.parametrize("name", [*COMMANDS, "(dispatched) labels"])
def test_help_comes_without_the_slow_libraries(name: str, tmp_path: Path) -> None:
    dispatched = name.startswith("(dispatched)")
    module, words = ("ripu", [name.split()[1], "--help"]) if dispatched else (f"ripu.{name}", ["--help"])
    code = (
        f"import sys, runpy; sys.argv = ['{module}', *{words}]\n"
        "status = 0\n"
        "try:\n"
        f"    runpy.run_module('{module}', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n"
        "    status = end.code\n"
        "slow = {'torch', 'pytorch_lightning', 'matplotlib', 'albumentations', 'wandb', 'torchmetrics'} & "
        "set(sys.modules)\n"
        "print('STATUS', status, 'SLOW', sorted(slow))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"STATUS (None|0) SLOW \[\]", done.stdout), done.stdout[-300:]
    assert name.split()[-1].rpartition(".")[2] in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "word",
    [
        *("paths.output_dir=ann", "+paths.beginnings=ann", "++start.run=ann", "start.labels='ann {class}'"),
        *("data.cache=ann", "model.checkpoint=ann", "model.weights=ann.pth", "+dataset.root=ann"),
        *("dataset.source.images=ann", "'dataset.target={images: ann}'", "dataset.val.labels=[ann]"),
        *("'paths={output_dir: ann}'", "'+dataset={root:ann}'", "'start={ann: 1}'", "--config-path=ann"),
        *("dataset.static_mask=ann.png", "hydra.run.dir=ann", "hydra.searchpath=[file://ann]", "logger.name=a/ann"),
        *("--config-dir ann", "-cd ann", "--config-path ann", "-cp ann", "--config-dir=ann", "/home/ann", "'C:\\ann'"),
    ],
)
def test_no_command_tells_a_folder(word: str) -> None:
    found = console.without_folders(f"python -m ripu.train seed=1 {word} mode=ra")
    assert "ann" not in found
    assert found.startswith("python -m ripu.train seed=1 ")
    assert found.endswith("... mode=ra")


@pytest.mark.parametrize(
    "word",
    [
        *("experiment=table1/ra", "hydra/launcher=joblib", "dataset.classes=[a,b]", "-m", "+a=1"),
        *("--config-name=replay", "--config-name replay", "optimizer.name=a{b}"),
    ],
)
def test_what_is_no_folder_stays(word: str) -> None:
    assert console.without_folders(f"python -m ripu.train {word}") == f"python -m ripu.train {word}"


@pytest.mark.slow
def test_a_run_on_a_real_terminal(data_root: Path, tmp_path: Path) -> None:
    """The command in a pseudo terminal: a bar while it works, nothing of the libraries, a summary at the end."""
    import fcntl
    import pty
    import struct
    import termios

    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    words = tiny(data_root, tmp_path / "run", *ROUNDS)
    process = subprocess.Popen(
        command("ripu", "train", *words), cwd=tmp_path, env=environment(TERM="xterm", COLUMNS="100"), stdin=other,
        stdout=other, stderr=other, close_fds=True,
    )  # fmt: skip
    os.close(other)
    seen = b""
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    assert process.wait(60) == 0, seen[-2000:]
    text = seen.decode()
    assert "pre-training on source" in text
    assert "\r" in text
    for noise in ("GPU available", "litlogger", "Trainer.fit", "Warning"):
        assert noise not in text
    last = text.replace("\r\n", "\n").rpartition("IoU by class")[0].splitlines()[-8:]
    assert any(line.startswith("final") for line in last)
