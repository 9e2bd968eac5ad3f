"""Moto's server as a process: prints its port, then serves until it is ended."""

from __future__ import annotations

import logging
import threading

from moto.server import ThreadedMotoServer


def main() -> None:
    """Serves on a free port of the loopback interface."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    print(server.get_host_and_port()[1], flush=True)  # noqa: T201
    threading.Event().wait()


if __name__ == "__main__":
    main()
