"""TensorBoard under the runs' own names, with what matters pinned on top of the first page.

TensorBoard names a run by its folder, which would be `beta_vae/tensorboard`, and sorts figures by
the alphabet. So it is started on a folder of links, which follows the runs while it is open, and
its first page opens with pinned cards. The runs themselves are only read. Runs in a bucket keep
their folders' names.

    python -m pipeline.display.board runs --port=6006
    python -m pipeline.display.board gs://bucket/runs
"""

import contextlib
import json
import os
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from pipeline.display import event_files, figures
from pipeline.runtime import errors
from pipeline.runtime.storage import places

FOLDER = "tensorboard"  # of a run, with its event files
SKIPPED = ("checkpoints", "reports")
SECONDS = 5.0  # between searches for new runs
TAGS = "/data/plugin/timeseries/tags"  # where TensorBoard lists what it shows
# In this order, as far as the runs have them.
PINNED = (
    "train/loss", "heldout/elbo", "heldout/distortion", "heldout/rate",
    "heldout/reconstruction_loss", "train/beta", "train/current_capacity", "heldout/perplexity",
    "heldout/codebook_usage",
)  # fmt: skip


def runs(root: Path) -> Iterator[tuple[str, Path]]:
    """Yields the name of every run below `root`, or of `root` itself, and its event files' folder.

    A run's name is the path of its folder.
    """
    for place, folders, _ in os.walk(root):
        if FOLDER in folders:
            name = os.path.relpath(place, root)
            yield (root.name if name == "." else name), Path(place, FOLDER).absolute()
        folders[:] = sorted({*folders} - {FOLDER, *SKIPPED})


def link(root: Path, links: Path) -> None:
    """Brings the folder `links` up to date: a folder a run, of links to its event files."""
    for name, folder in runs(root):
        ours = links / name
        ours.mkdir(parents=True, exist_ok=True)
        for path in folder.glob(event_files.NAMES):
            if not os.path.lexists(ours / path.name):
                (ours / path.name).symlink_to(path)
    for path in links.rglob(event_files.NAMES):
        if not path.exists():  # the run was removed
            path.unlink()


def pinned(tags: Collection[str]) -> list[str]:
    """Returns the tags to pin, the most important first; none is another's curve again."""
    shown = [tag for tag in PINNED if tag in tags]
    twin = {tag: f"{tag.rpartition('/')[0]}/{figures.of(tag).same_as}" for tag in shown}
    return [tag for tag in shown if twin[tag] not in shown]


def with_pins(app: Callable, query: Callable[[], dict[str, Any]]) -> Callable:
    """Returns the WSGI application whose first page opens with pinned cards.

    Args:
        app: of TensorBoard.
        query: returns what it lists under `TAGS`.
    """

    def answer(environ: dict[str, Any], start_response: Callable) -> Any:
        first = environ.get("PATH_INFO", "") in ("", "/") and not environ.get("QUERY_STRING")
        if first and (cards := _cards(query())):
            address = f"?pinnedCards={urllib.parse.quote(json.dumps(cards))}"
            start_response("302 Found", [("Location", address), ("Cache-Control", "no-store")])
            return [b""]
        return app(environ, start_response)

    return answer


def _cards(listed: dict[str, Any]) -> list[dict[str, str]]:
    by_run = listed.get("scalars", {}).get("runTagInfo", {})
    tags = {tag for of_run in by_run.values() for tag in of_run}
    return [{"plugin": "scalars", "tag": tag} for tag in pinned(tags)]


@contextlib.contextmanager
def _logs(root: Path) -> Iterator[str]:
    """Yields the folder on which TensorBoard is started; no link can lead into a bucket."""
    if places.is_bucket(root):
        yield str(root)
        return
    with tempfile.TemporaryDirectory(prefix="runs-") as links:

        def follow() -> None:
            while True:
                time.sleep(SECONDS)
                link(root.resolve(), Path(links))

        link(root.resolve(), Path(links))
        threading.Thread(target=follow, daemon=True).start()
        yield links


def main() -> int:
    """Serves until Ctrl-C: the first argument names the runs' place, others are TensorBoard's."""
    arguments = sys.argv[1:]
    given = "runs" if not arguments or arguments[0].startswith("-") else arguments.pop(0)
    try:
        root = places.of(given, name="runs")
    except errors.InputError as error:
        errors.say(f"error: {error}")
        return 2
    if not root.is_dir():
        errors.say(f"error: {root} is no folder: name the folder of runs, or of one run")
        return 2
    from tensorboard import program
    from werkzeug import test

    def serve(app: Callable, flags: Any) -> Any:
        client = test.Client(app)
        query = lambda: client.get(TAGS).json or {}  # noqa: E731
        return program.create_port_scanning_werkzeug_server(with_pins(app, query), flags)

    with _logs(root) as logs:
        server = program.TensorBoard(server_class=serve)
        server.configure(["tensorboard", f"--logdir={logs}", *arguments])
        try:
            return server.main()
        except KeyboardInterrupt:
            return 130


if __name__ == "__main__":
    sys.exit(main())
