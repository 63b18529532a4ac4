"""The `prozess` command: a table of verbs, each loaded only when it is called.

Exit codes: 0 good, 1 bad, 2 unknown or could not run (wrong use included); 130 after Ctrl-C and 141
when the reader of our output went away, as the shell has it for every program.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple

import click

EXIT_UNKNOWN = 2
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141


class Entry(NamedTuple):
    section: str
    module: str
    attribute: str
    summary: str


COMMANDS: dict[str, Entry] = {
    "up": Entry("Cluster", "client.cli.cluster", "up", "Start a local cluster."),
    "down": Entry("Cluster", "client.cli.cluster", "down", "Stop a local cluster."),
    "status": Entry("Cluster", "client.cli.status", "status", "Show nodes, quorum, replicas."),
    "logs": Entry("Cluster", "client.cli.cluster", "logs", "Show what the nodes print."),
    "kill": Entry("Cluster", "client.cli.cluster", "kill", "Kill a node with -9."),
    "pause": Entry("Cluster", "client.cli.cluster", "pause", "Stop a node's clock (SIGSTOP)."),
    "resume": Entry("Cluster", "client.cli.cluster", "resume", "Wake a paused node."),
    "restart": Entry("Cluster", "client.cli.cluster", "restart", "Stop and start a node."),
    "purge": Entry("Cluster", "client.cli.cluster", "purge", "Stop a cluster, remove its data."),
    "broker": Entry("Cluster", "client.cli.broker", "broker", "Run one node here."),
    "topic": Entry("Data", "client.cli.topic", "topic", "Create, list, describe, delete topics."),
    "produce": Entry("Data", "client.cli.produce", "produce", "Send standard input to a topic."),
    "consume": Entry("Data", "client.cli.consume", "consume", "Print a topic's records."),
    "log": Entry("Data", "client.cli.log", "log", "Dump and verify data directories."),
    "perf": Entry("Data", "client.cli.perf", "perf", "Measure throughput and latency."),
    "chaos": Entry("Trial", "client.cli.chaos", "chaos", "Try a cluster under faults, judge it."),
    "sim": Entry("Trial", "client.cli.sim", "sim", "Explore faulty histories in virtual time."),
    "tla": Entry("Trial", "client.cli.tla", "tla", "Check the TLA+ models of the protocol."),
    "doctor": Entry("Help", "client.cli.doctor", "doctor", "Check this machine."),
    "version": Entry("Help", "client.cli.version", "version", "Print versions."),
}


class LazyGroup(click.Group):
    """Shows the table without importing a verb, and imports a verb when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(entry.module), entry.attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in dict.fromkeys(entry.section for entry in COMMANDS.values()):
            rows = [(n, e.summary) for n, e in COMMANDS.items() if e.section == section]
            with formatter.section(section):
                formatter.write_dl([(f"{name:<8}", summary) for name, summary in rows])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`prozess VERB --help` shows an example of each verb.",
)
def cli() -> None:
    """Prozess: a replicated commit log, and its trial."""


def _line(text: str) -> None:
    print(f"prozess: {' '.join(text.split())}", file=sys.stderr)


def _usage(error: click.UsageError) -> int:
    verb = error.ctx.command_path if error.ctx is not None else "prozess"
    _line(f"{error.format_message()} (see `{verb} --help`)")
    return EXIT_UNKNOWN


def _invoke(words: list[str]) -> int:
    """The verb's own exit code; 0 when it names none."""
    try:
        # Not cli.main(): that turns a closed pipe into exit code 1, which here means "bad".
        with cli.make_context("prozess", words) as context:
            code = cli.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    return code if isinstance(code, int) else 0


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code. Expected errors are one line on stderr."""
    try:
        code = _invoke(sys.argv[1:] if arguments is None else list(arguments))
        if sys.stdout is not None:  # closed by whoever started us
            sys.stdout.flush()
        return code
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return EXIT_UNKNOWN
    except click.UsageError as error:
        return _usage(error)
    except click.ClickException as error:
        _line(error.format_message())
        return getattr(error, "code", EXIT_UNKNOWN)
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # What is still buffered has no reader: without this the interpreter complains at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except Exception as error:
        # A bug of ours. Python would exit with 1, which here means "judged, and bad".
        traceback.print_exc()
        raise SystemExit(EXIT_UNKNOWN) from error


def main() -> int:
    """The console script."""
    if sys.platform == "win32":
        _line("Windows is not supported: use Linux, or WSL")
        return EXIT_UNKNOWN
    if sys.flags.optimize:
        _line("python -O removes the invariants that a node stops at: start without -O")
        return EXIT_UNKNOWN
    return run()


if __name__ == "__main__":
    sys.exit(main())
