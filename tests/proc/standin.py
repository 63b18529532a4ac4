"""A node without a broker inside: listens, prints, stops on SIGTERM. For tests of the launcher."""

import signal
import socket
import sys
from pathlib import Path
from types import FrameType

from broker.config import load


def main() -> None:
    config = load(Path(sys.argv[-1]))
    data = Path(config.data_dir)
    if "--format" in sys.argv:
        if "--fail" in sys.argv:
            sys.exit("the disk said no")
        data.mkdir(parents=True)
        (data / "meta.properties").write_text(f"node_id={config.node_id}\n", encoding="ascii")
        return
    listeners = []
    for port in (config.broker_port, config.controller_port):
        if port:
            listeners.append(socket.create_server((config.host, port)))

    def stop(number: int, frame: FrameType | None) -> None:
        print(f"node {config.node_id} stops", flush=True)
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    print(f"node {config.node_id} listens", flush=True)
    if "--crash" in sys.argv:
        sys.exit("node fell over")
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
