"""``python -m ripu.annotate RUN``: answer the questions of a run on a page, and exchange them with other tools.

python -m ripu.annotate RUN --as NAME            serve the page for one person on this machine
python -m ripu.annotate RUN status               print how many questions are answered, and the hours left
python -m ripu.annotate RUN close                freeze the answers of the round; then resume the run
python -m ripu.annotate RUN reopen               open the closed round again, unless the run has used its answers
python -m ripu.annotate RUN agree                print how far people agree, with each other and with suggestions
python -m ripu.annotate RUN export FORMAT OUT    write the questions (and answers so far) for another tool
python -m ripu.annotate RUN import FORMAT PATH   read answers from another tool
"""

# ruff: noqa: E402

from __future__ import annotations

from ripu.io.signals import guard_start

guard_start(__name__)

import argparse
import contextlib
import getpass
import json
import logging
import os
import secrets
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ripu.annotate.errors import AnnotationError
from ripu.annotate.formats import FORMATS
from ripu.annotate.running_server import ask_server, read_record, record_file, write_record
from ripu.annotate.sockets import own_addresses, tcp_socket, unix_socket
from ripu.io.errors import RipuError, print_error
from ripu.io.lock import FileLock, LockedError
from ripu.io.signals import end_guard, say_stopped, stop_on_sigterm, stop_status
from ripu.io.writing import writing

if TYPE_CHECKING:  # numpy and OmegaConf take long to import
    from ripu.annotate.images import Images
    from ripu.annotate.session import Session
    from ripu.datasets.scenes import SceneDataset


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments without the program's name; None for those of the process.

    Returns:
        The exit status: 0, 1 if the command is refused, or 130 or 143 if a signal stopped it.
    """
    arguments = _parser().parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    end_guard()
    try:
        status: int = arguments.command(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        status = say_stopped("stopped; all answers are saved")
        return stop_status() or status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (RipuError, OSError) as error:
        print_error(error)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ripu.annotate",
        description="Answer the questions of a run (oracle=human) on a page; close a round; exchange with other tools.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the folder of the run")
    parser.add_argument("--as", dest="name", metavar="NAME", help="annotator (default: the page asks, or your login)")
    parser.add_argument("--port", type=int, default=0, help="port (default: the last one of this run, else a free one)")
    parser.add_argument("--socket", type=Path, metavar="PATH", help="serve on a Unix socket (for ssh -L), mode 0600")
    parser.add_argument(
        "--allow-remote",
        nargs="+",
        metavar="NAME",
        help="serve other machines, too, with an address for each annotator; no TLS: use a trusted network",
    )
    parser.add_argument("--data-root", metavar="FOLDER", help="the data's folder on this machine, if it has moved")
    parser.set_defaults(command=_serve)
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, command, purpose in (
        ("status", _status, "Print the state of the round in a few lines."),
        ("close", _close, "Close the round: its answers are frozen for the run."),
        ("reopen", _reopen, "Open the closed round again, unless the run has used its answers."),
        ("agree", _agree, "Print how far people agree, with each other and with suggestions."),
    ):
        sub = commands.add_parser(name, help=purpose, description=purpose)
        sub.add_argument("--json", action="store_true", help="print JSON")
        sub.set_defaults(command=command)
    for name, command, place, purpose in (
        ("export", _export, "OUT", "Write the questions of the round for another tool."),
        ("import", _import, "PATH", "Read answers from another tool."),
    ):
        sub = commands.add_parser(name, help=purpose, description=purpose)
        sub.add_argument("format", choices=FORMATS, help=", ".join(f"{one}: {text}" for one, text in FORMATS.items()))
        sub.add_argument("path", metavar=place, type=Path)
        sub.set_defaults(command=command)
    return parser


# ---- the session of a run


def open_session(run: Path, data_root: str | None = None) -> tuple[Session, Images]:
    """Open the annotation of a run.

    Args:
        run: The folder of the run.
        data_root: The data's folder on this machine; None for that of the run.

    Returns:
        The session, whose journal is open in this process, and the pictures.

    Raises:
        AnnotationError: The folder contains no run, or another process has its journal open.
        ConfigError: Its configuration cannot be used.
    """
    from ripu.annotate.images import Images
    from ripu.annotate.open_round import Settings
    from ripu.annotate.session import Session
    from ripu.config.migrate import read_stored
    from ripu.config.spec import make_spec
    from ripu.config.targets import accept_stored
    from ripu.labelstore import LabelReader, StoreMissingError
    from ripu.run.restore import with_data_root

    config = read_stored(run / "config.yaml")
    made = {"dataset": config.get("dataset")}  # all of it that is made here
    accept_stored(made, run / "config.yaml", is_own=True)
    spec = make_spec(config if data_root is None else with_data_root(config, data_root))
    if spec.person is None:
        raise AnnotationError(f"{run}: its questions are answered by label files; start a run with oracle=human")
    try:
        store = LabelReader(run / "labels")
    except StoreMissingError as error:
        raise AnnotationError(f"{run}: the run has no label store yet; wait until it has begun") from error
    person = spec.person
    settings = Settings(person.overlap, person.suggest, person.hours, person.keys or {})
    found: list[tuple[SceneDataset, dict[str, int]]] = []
    lock = threading.Lock()

    def read(number: int) -> Any:
        from ripu.datasets.image_files import as_rgb
        from ripu.run.assembly.data import load_parts

        with lock:
            if not found:
                scenes = load_parts(spec.dataset, spec.data.image_reader, is_lenient=True, parts=("target",))["target"]
                found.append((scenes, {scene.image_id: position for position, scene in enumerate(scenes.scenes)}))
        scenes, positions = found[0]
        image_id = store.images[number].image_id
        if image_id not in positions:
            raise AnnotationError(f"{image_id} is not in the data any more; restore its file")
        return as_rgb(scenes.require_image(positions[image_id]))

    session = Session(run, store, spec.taxonomy.class_colors, settings, num_rounds=len(spec.plan.selection_steps))
    return session, Images(store, read)


@contextlib.contextmanager
def _own_session(arguments: argparse.Namespace) -> Iterator[tuple[Session, Images]]:
    """Open the session in this process; refuse it while a server is running."""
    folder = arguments.run / "annotation"
    if not (arguments.run / "config.yaml").is_file():
        raise AnnotationError(
            f"{arguments.run} contains no run of this package (config.yaml is missing); name the folder of a run"
        )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / "server.lock")
    except LockedError as error:
        address = (read_record(arguments.run) or {}).get("url", "")
        where = f" at {address}" if address else ""
        raise AnnotationError(f"a server is running for this run{where}: {error}") from error
    with lock:
        session, images = open_session(arguments.run, arguments.data_root)
        try:
            yield session, images
        finally:
            session.close_journal()


# ---- the server


def _serve(arguments: argparse.Namespace) -> int:
    from ripu.annotate.server import Server, make_app

    stop_on_sigterm()
    with _own_session(arguments) as (session, images), contextlib.ExitStack() as stack:
        names: list[str | None] = list(arguments.allow_remote or [arguments.name])
        tokens = {secrets.token_urlsafe(24): name for name in names}
        own = secrets.token_urlsafe(24)
        host, hosts, sock = "127.0.0.1", None, None
        if arguments.socket is not None:
            address = f"socket {arguments.socket}"
            sock = unix_socket(arguments.socket)
            stack.callback(lambda: arguments.socket.unlink(missing_ok=True))
        else:
            sock = tcp_socket(
                "0.0.0.0" if arguments.allow_remote else host,  # noqa: S104, asked for
                arguments.port,
                int(session.journal.about("port") or 0),
            )
            port = sock.getsockname()[1]
            session.journal.remember("port", str(port))
            named = ["127.0.0.1", "localhost"]
            if arguments.allow_remote:
                host = socket.getfqdn()
                named += [host, socket.gethostname(), *own_addresses()]
            hosts = frozenset(f"{one.lower()}:{port}" for one in named)
            address = f"http://{host}:{port}/"
        sock.listen(128)  # before anybody hears of it: who comes early waits instead of being turned away
        app = make_app(session, images, {**tokens, own: None}, hosts)
        about = {"url": address, "token": own, "pid": os.getpid(), "host": socket.gethostname()}
        if arguments.socket is not None:
            about["socket"] = str(arguments.socket.resolve())
        write_record(arguments.run, about)
        stack.callback(lambda: record_file(arguments.run).unlink(missing_ok=True))
        for token, name in tokens.items():
            who = f" ({name})" if name is not None else ""
            print(f"annotate: {address}#{token}{who}", flush=True)
        Server(app, sock=sock).run()
    return 0


# ---- commands beside a server


def _login() -> str:
    with contextlib.suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return "somebody"


def _do(arguments: argparse.Namespace, path: str, body: dict[str, Any] | None, own: Any) -> dict[str, Any]:
    """Send a request to the running server, or do the same in this process."""
    found = ask_server(arguments.run, path, body)
    if found is not None:
        return found
    with _own_session(arguments) as (session, _):
        result: dict[str, Any] = own(session)
        return result


def _status(arguments: argparse.Namespace) -> int:
    def own(session: Session) -> dict[str, Any]:
        return {"state": session.state, **({} if session.state == "waiting" else session.stats())}

    found = _do(arguments, "/api/stats", None, own)
    if arguments.json:
        print(json.dumps(found, indent=1))
        return 0
    if found["state"] == "waiting":
        print("no question yet: the run has not reached its first round")
        return 0
    print(
        f"round {found['round'] + 1}: {found['state']}; {found['answered']} of {found['questions']} questions "
        f"answered, {found['unsure']} unsure, {found['conflicts']} in conflict, {found['unanswered']} open"
    )
    if found["seconds_per_answer"] is not None:
        print(
            f"{found['seconds_per_answer']:.1f} s per answer; {found['hours_spent']:.2f} hours spent, "
            f"{found['hours_left']:.2f} left"
        )
    for one in found["annotators"]:
        print(f"  {one['by']}: {one['answered']} answers")
    return 0


def _close(arguments: argparse.Namespace) -> int:
    by = arguments.name or _login()
    found = _do(arguments, "/api/close", {"by": by}, lambda session: session.close(by))
    if arguments.json:
        print(json.dumps(found, indent=1))
        return 0
    print(
        f"closed: {found['answered']} of {found['questions']} questions answered; {found['unanswered']} unanswered, "
        f"{found['unsure']} unsure and {found['conflicts']} in conflict stay unrevealed"
    )
    return 0


def _reopen(arguments: argparse.Namespace) -> int:
    by = arguments.name or _login()

    def own(session: Session) -> dict[str, Any]:
        session.reopen(by)
        return {"reopened": True}

    _do(arguments, "/api/reopen", {"by": by}, own)
    print("open again")
    return 0


def _agree(arguments: argparse.Namespace) -> int:
    found = _do(arguments, "/api/stats", None, lambda session: session.stats())
    if arguments.json:
        print(json.dumps({key: found[key] for key in ("agreement", "suggestions")}, indent=1))
        return 0
    agreement = found["agreement"]
    if agreement is None:
        print("no question was answered by two people; oracle.overlap=0.1 asks two about a tenth of them")
    else:
        for pair in [*agreement["pairs"], {"first": "all", "second": "", "pixels": "", **agreement}]:
            kappa = "-" if pair["kappa"] is None else f"{pair['kappa']:.3f}"
            who = f"{pair['first']} and {pair['second']}: {pair['pixels']} pixels," if pair["second"] else "all:"
            print(f"{who} {100 * pair['agreement']:.1f} % equal, kappa {kappa}")
    for kind, one in (found["suggestions"] or {}).items():
        print(f"suggestion {kind}: {one['agree']} of {one['answers']} answers agree with the network")
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from ripu.annotate.codecs import FORMATS, Asked, ClassNames

    with _own_session(arguments) as (session, images):
        asked = Asked(session.questions, ClassNames(session.classes), images.image, session.final_labels)
        count = FORMATS[arguments.format].export_questions(asked, arguments.path)
    print(f"{arguments.path}: {count} questions")
    return 0


def _import(arguments: argparse.Namespace) -> int:
    from ripu.annotate.codecs import FORMATS

    with _own_session(arguments) as (session, _):
        answers, report = FORMATS[arguments.format].import_answers(
            arguments.path, session.store, session.questions_of, session.classes
        )
        session.import_answers(arguments.name or "import", answers, report)
    print(
        f"{arguments.path}: {report.new} questions answered, {report.known} already known, {report.incomplete} "
        f"incomplete; {report.dropped_pixels} pixels that were not asked about are left out"
    )
    for label, names in (
        ("other answers exist (conflicts)", report.conflicts),
        ("unknown questions", report.unknown_questions),
        ("unknown images", report.unknown_images),
    ):
        if names:
            print(f"{label}: {len(names)}: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
