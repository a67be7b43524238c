"""argv -> a command; nothing else. Commands are imported when they run, so that ``--help`` answers at once."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from streamsvc.errors import ConfigError, StreamsvcError
from streamsvc.ops.ending import end_at_once

DONE, FAILED, BAD_USAGE, REJECTS = 0, 1, 2, 3

DUCKDB_INTERRUPTED = "Query interrupted"
"""What DuckDB makes of Ctrl-C while it computes."""

app = typer.Typer(
    help="Kafka and Kinesis to partitioned Parquet on object storage, exactly once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 bad configuration or usage, 3 finished with rejects (--fail-on-rejects).",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from streamsvc import __version__

        print(f"streamsvc {__version__}")
        raise typer.Exit


@app.callback()
def every_command(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Kafka and Kinesis to partitioned Parquet on object storage, exactly once."""


File = Annotated[Path, typer.Argument(help="The configuration.", show_default=False)]
OnePipeline = Annotated[str | None, typer.Option("--pipeline", "-p", help="This pipeline only.")]
UntilEnd = Annotated[bool, typer.Option("--until-end", help="End once all that was there at the start is committed.")]
FailOnRejects = Annotated[
    bool, typer.Option("--fail-on-rejects", help="With --until-end: exit 3 if any record was rejected.")
]
GiveUp = Annotated[bool, typer.Option("--give-up", help="Also decide a pending segment that cannot be finished.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs.")]


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="Where to; overwrites nothing.")] = Path("streamsvc.yaml"),
) -> None:
    """Write a first configuration, with comments, and its schema for editors."""
    from streamsvc.commands.init import init as command

    raise typer.Exit(command(file))


@app.command()
def run(
    file: File,
    pipeline: OnePipeline = None,
    *,
    until_end: UntilEnd = False,
    close_windows: Annotated[
        bool, typer.Option("--close-windows", help="With --until-end: also those that are open then.")
    ] = False,
    fail_on_rejects: FailOnRejects = False,
    summary: Annotated[Path | None, typer.Option(help="Write what was done, as JSON, to this file at the end.")] = None,
) -> None:
    """Read, decode and land, until SIGTERM."""
    from streamsvc.commands.run import run as command

    if close_windows and not until_end:
        raise typer.BadParameter("goes with --until-end: windows close at the end", param_hint="--close-windows")
    code = command(
        file,
        pipeline,
        until_end=until_end,
        close_windows=close_windows,
        fail_on_rejects=fail_on_rejects,
        summary=summary,
    )
    raise typer.Exit(code)


@app.command()
def validate(
    file: File,
    *,
    online: Annotated[bool, typer.Option("--online", help="Also ask the source and the stores.")] = False,
) -> None:
    """Check the configuration; every problem with its line."""
    from streamsvc.commands.validate import validate as command

    raise typer.Exit(command(file, online=online))


@app.command()
def preview(
    file: File,
    pipeline: OnePipeline = None,
    *,
    rows: Annotated[int, typer.Option(min=1, help="How many records to read of each pipeline.")] = 1000,
    show: Annotated[int, typer.Option(min=0, help="How many rows and rejects to show.")] = 10,
) -> None:
    """Decode a sample; show rows, paths and rejects. Writes nothing."""
    from streamsvc.commands.preview import preview as command

    raise typer.Exit(command(file, pipeline, rows=rows, show=show))


@app.command()
def status(file: File, pipeline: OnePipeline = None, *, json: AsJson = False) -> None:
    """Where every split stands: committed position, lag, pending segments, last files."""
    from streamsvc.commands.status import status as command

    raise typer.Exit(command(file, pipeline, as_json=json))


@app.command()
def rejects(
    file: File,
    pipeline: OnePipeline = None,
    *,
    replay: Annotated[bool, typer.Option("--replay", help="Decode them again and land what now passes, once.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="How many to list.")] = 20,
    json: AsJson = False,
) -> None:
    """List and count what could not be decoded or placed."""
    from streamsvc.commands.rejects import rejects as command

    raise typer.Exit(command(file, pipeline, replay=replay, limit=limit, as_json=json))


@app.command()
def gc(file: File, pipeline: OnePipeline = None) -> None:
    """Fold the segment log and delete what the newest checkpoint covers. Never touches data."""
    from streamsvc.commands.housekeeping import gc as command

    raise typer.Exit(command(file, pipeline))


@app.command()
def seek(
    file: File,
    pipeline: Annotated[str, typer.Option("--pipeline", "-p", help="The pipeline to move.")],
    to: Annotated[
        str,
        typer.Option(help="earliest, latest, an ISO time, or (with --split) an offset, a position of Kinesis, or end."),
    ],
    *,
    split: Annotated[list[str] | None, typer.Option(help="Only this split; repeat for more.")] = None,
    reason: Annotated[str, typer.Option(help="Kept in the log.")] = "",
    give_up: GiveUp = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would mean, and move nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; without a terminal nothing is asked.")] = False,
) -> None:
    """Move where splits are read from; running workers follow."""
    from streamsvc.commands.housekeeping import Seek
    from streamsvc.commands.housekeeping import seek as command

    def confirmed() -> bool:
        return not dry_run and (yes or not sys.stdin.isatty() or typer.confirm("Move them?"))

    raise typer.Exit(command(file, pipeline, Seek(to, split or [], reason, give_up, confirmed)))


@app.command()
def end_split(
    file: File,
    pipeline: Annotated[str, typer.Option("--pipeline", "-p", help="The windowed pipeline.")],
    split: Annotated[list[str], typer.Option(help="One that `status` says windows wait for; repeat for more.")],
    *,
    reason: Annotated[str, typer.Option(help="Kept in the log.")] = "",
    give_up: GiveUp = False,
) -> None:
    """Let windows close without a split that is gone for good: of a topic that was deleted or made anew."""
    from streamsvc.commands.end_split import end_split as command

    raise typer.Exit(command(file, pipeline, splits=split, reason=reason, give_up=give_up))


@app.command()
def redirect(
    file: File,
    pipeline: Annotated[str, typer.Option("--pipeline", "-p", help="Whose pending segments.")],
    *,
    gone: Annotated[
        bool, typer.Option("--gone", help="What may be at the former destination counts for nothing; do not look.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Kept in the log.")] = "",
) -> None:
    """Land pending segments whose destination can never be written again where the file says now."""
    from streamsvc.commands.redirect import redirect as command

    raise typer.Exit(command(file, pipeline, gone=gone, reason=reason))


@app.command()
def decode(
    source: Annotated[str, typer.Argument(help="A file, or - for standard input.", show_default=False)],
    decoder: Annotated[str, typer.Option("--as", help="apache=combined, apache='<LogFormat>', json=COLUMNS_FILE, raw")],
    *,
    rejects: Annotated[Path | None, typer.Option(help="Rejects go here, a JSON object a line.")] = None,
) -> None:
    """Lines in, a JSON object a line out. Any decoder, as a Unix filter."""
    from streamsvc.commands.decode import decode as command

    raise typer.Exit(command(source, decoder, rejects))


@app.command()
def put(
    source: Annotated[str, typer.Argument(help="A file, or - for standard input.", show_default=False)],
    stream: Annotated[str, typer.Option(help="The Kinesis stream.")],
    *,
    kpl: Annotated[bool, typer.Option("--kpl", help="Pack records as the Kinesis Producer Library does.")] = False,
    region: Annotated[str | None, typer.Option(help="Else the environment's, or the profile's.")] = None,
    endpoint_url: Annotated[str | None, typer.Option(help="Of an emulator: http://127.0.0.1:4567.")] = None,
    partition_key: Annotated[str | None, typer.Option(help="One for every record, instead of random ones.")] = None,
    key_column: Annotated[str | None, typer.Option(help="A column from 1 between blanks, or a name in JSON.")] = None,
) -> None:
    """Lines into a Kinesis stream, one record a line, until every one of them is stored."""
    from streamsvc.commands.put import Destination
    from streamsvc.commands.put import put as command

    destination = Destination(stream, region, endpoint_url, aggregate=kpl)
    raise typer.Exit(command(source, destination, partition_key, key_column))


@app.command()
def iam_policy(file: File, pipeline: OnePipeline = None) -> None:
    """The least policy of AWS IAM that this configuration needs, as JSON."""
    from streamsvc.commands.iam_policy import iam_policy as command

    raise typer.Exit(command(file, pipeline))


@app.command()
def demo(
    *,
    seconds: Annotated[int, typer.Option(min=1, help="How long logs are produced.")] = 20,
    lake: Annotated[Path, typer.Option(help="Where the lake goes; emptied first.")] = Path("demo"),
    rate: Annotated[int, typer.Option(min=10, help="Lines a second.")] = 2000,
) -> None:
    """The whole thing in one process with nothing to install: broker, logs, pipelines, lake, a query."""
    from streamsvc.commands.demo import demo as command

    raise typer.Exit(command(seconds=seconds, lake=lake, rate=rate))


def main() -> None:
    """The console script: errors are printed for people, without a traceback.

    The first process of a container does not hear a signal for which it has no handler, so there is one from the start.
    It ends the process and raises nothing: DuckDB, called at that moment, would make some error of its own of that.
    What lands records has a handler of its own, which drains.
    """
    signal.signal(signal.SIGTERM, lambda number, _: end_at_once(128 + number))
    try:
        app()
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(BAD_USAGE)
    except StreamsvcError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(FAILED)
    except RuntimeError as error:
        if str(error) != DUCKDB_INTERRUPTED:
            raise
        raise KeyboardInterrupt from None
    except OSError as error:
        print(f"{error.strerror}: {error.filename or 'standard input or output'}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(FAILED)  # without the flush of standard output that ends a process, which fails again
