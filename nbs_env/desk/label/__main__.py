"""Mark defects in a browser, train, look, mark again: `nbs label --images FOLDER`.

Further options are those of `nbs train`, and say how each round is trained (`--preset standard`).
"""

from __future__ import annotations

import secrets
import signal
import socket
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from nbs_env.common.errors import RunError
from nbs_env.common.runs import command


@dataclass(frozen=True)
class LabelArgs:
    """What to label."""

    images: Path
    """Folder that holds `images/`; masks go to `masks/` beside it, and training to `runs/`."""
    port: int = 0
    """Port on 127.0.0.1; 0: any that is free."""
    browser: bool = True
    """Open the page in a browser."""


@command("stopped; every stroke is saved")
def main(argv: Sequence[str] | None = None) -> None:
    """Serve the page until interrupted."""
    args, words = tyro.cli(LabelArgs, args=argv, description=__doc__, return_unknown_args=True)
    try:
        import uvicorn

        from nbs_env.desk.label.server import Desk, make_app
    except ModuleNotFoundError as error:
        install = "python -m pip install 'neural-batch-sampling[label]'"
        raise RunError(f"{error.name} is missing; {install}") from error
    from nbs_env.desk.label.folder import Folder
    from nbs_env.desk.label.looking import Looking
    from nbs_env.desk.label.training import Training

    folder = Folder(args.images)
    training = Training(folder, words)
    looking = Looking(folder, training)
    with socket.create_server(("127.0.0.1", args.port)) as listener:
        port, token = listener.getsockname()[1], secrets.token_urlsafe(24)
        app = make_app(Desk(folder, training, looking), token, port)
        address = f"http://127.0.0.1:{port}/{token}/"
        print(f"{len(folder.files)} images, {len(folder.masks())} labelled: {address}", flush=True)
        quiet: Any = {"log_level": "critical", "access_log": False, "lifespan": "off", "ws": "none"}
        server = uvicorn.Server(uvicorn.Config(app, timeout_graceful_shutdown=2, **quiet))
        looking.start()
        if args.browser:
            webbrowser.open(address)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # or nothing below would be done
        try:
            server.run([listener])
        finally:
            looking.stop()
            training.close()


if __name__ == "__main__":
    main()
