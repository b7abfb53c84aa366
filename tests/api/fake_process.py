"""A server process with a fake model, for tests that send real signals: `python -m tests.api.fake_process SECONDS`.

It never ends an answer by itself, and each forward pass after the first three waits for a line on stdin.
"""

import sys
import threading

from api.serve import serve_models
from api.settings import ServerConfig
from engine.tools import tool
from tests.api.servers import MODEL, FakeLoader
from tests.fakes import EOS, Gate, fake_loaded, with_hook


@tool
def hang() -> None:
    """Never return."""
    print("the tool hangs", file=sys.stderr, flush=True)
    threading.Event().wait()


def main() -> None:
    gate = Gate()
    gate.let_through(3)
    threading.Thread(target=lambda: sys.stdin.readline() and gate.open(), daemon=True).start()
    config = ServerConfig(model=MODEL, port=0, shutdown_timeout_s=int(sys.argv[1]), tools=(hang,))
    serve_models(config, FakeLoader({MODEL: lambda: with_hook(fake_loaded(bonus={EOS: -(10**6)}), gate)}))


if __name__ == "__main__":
    main()
